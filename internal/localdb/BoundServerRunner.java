import java.lang.reflect.Field;
import java.util.Arrays;
import org.eclipse.jetty.server.ConnectionFactory;
import org.eclipse.jetty.server.Connector;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import software.amazon.dynamodb.services.local.main.ServerRunner;
import software.amazon.dynamodb.services.local.server.DynamoDBProxyServer;

/**
 * Runs DynamoDB Local 3.1.0 on the addresses of its first argument, which are separated by commas, and not on all
 * addresses of the machine, as DynamoDB Local itself does. The other arguments are DynamoDB Local's.
 *
 * <p>If the server can't be bound, because another version keeps it elsewhere, it ends before it listens.
 */
final class BoundServerRunner {
    public static void main(String[] args) {
        try {
            run(args[0].split(","), Arrays.copyOfRange(args, 1, args.length));
        } catch (Exception e) {
            System.err.println("DynamoDB Local can't be bound to " + args[0] + ": " + causes(e));
            System.exit(1);
        }
    }

    private static void run(String[] addresses, String[] args) throws Exception {
        DynamoDBProxyServer local = ServerRunner.createServerFromCommandLineArgs(args);
        Field field = DynamoDBProxyServer.class.getDeclaredField("server");
        field.setAccessible(true);
        Server server = (Server) field.get(local);
        Connector[] connectors = server.getConnectors();
        if (connectors.length != 1) {
            throw new IllegalStateException("it has " + connectors.length + " connectors and not one");
        }
        ServerConnector first = (ServerConnector) connectors[0];
        first.setHost(addresses[0]);
        for (String address : Arrays.asList(addresses).subList(1, addresses.length)) {
            ServerConnector another = new ServerConnector(server, first.getConnectionFactories().toArray(ConnectionFactory[]::new));
            another.setHost(address);
            another.setPort(first.getPort());
            server.addConnector(another);
        }
        local.safeStart();
    }

    private static String causes(Throwable e) {
        return e.getCause() == null ? e.toString() : e + ": " + causes(e.getCause());
    }
}
