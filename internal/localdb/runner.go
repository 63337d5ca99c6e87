package localdb

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// minJava is the oldest Java that DynamoDB Local 3 runs on.
const minJava = 17

// findRunner chooses Java if it can run DynamoDB Local, which it fetches if necessary, else Docker.
// If neither can, the error says what is missing for both.
func findRunner(ctx context.Context, o Options) (runner, error) {
	jars, _ := filepath.Abs(jarsDir(o.Jars))
	listen := []string{loopback}
	if o.Containers {
		bridge, err := bridgeAddresses(ctx)
		if err != nil {
			return nil, err
		}
		listen = append(listen, bridge...)
	}
	java, mvn, noJava := findJDK(ctx, jars)
	if noJava == nil {
		if !fetched(jars) {
			if err := fetch(ctx, mvn, jars, o.say); err != nil {
				return nil, err
			}
		}
		if !fetched(launcherDir(jars)) {
			if err := compile(ctx, java, jars); err != nil {
				return nil, err
			}
		}
		return javaRunner{java, jars, listen}, nil
	}
	docker, noDocker := findDocker(ctx)
	if noDocker == nil {
		err := pull(ctx, docker, o.say)
		if err == nil && o.Data != "" {
			err = allowContainer(ctx, docker, o.Data)
		}
		return dockerRunner{docker, containerName(o.Data), listen}, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return nil, fmt.Errorf("DynamoDB Local needs Java %d or newer (a JDK) with Maven, or Docker: %w, and %w; "+
		"install one of the two (Debian: apt-get install default-jdk-headless maven), "+
		"or set DYNAMODB_ENDPOINT to a DynamoDB that runs already", minJava, noJava, noDocker)
}

func (o Options) say(text string) {
	if o.Say != nil {
		o.Say(text)
	}
}

// findJDK returns a java that can run DynamoDB Local, and the Maven to fetch DynamoDB Local if it
// was not fetched yet.
func findJDK(ctx context.Context, jars string) (java, mvn string, err error) {
	java, err = findJava(ctx)
	if err == nil && !fetched(launcherDir(jars)) {
		err = findCompiler(ctx, java)
	}
	if err != nil || fetched(jars) {
		return java, "", err
	}
	if mvn, err = exec.LookPath("mvn"); err != nil {
		err = fmt.Errorf("%s is here, but not Maven (mvn), which fetches DynamoDB Local", java)
	}
	return java, mvn, err
}

// findJava returns the first java, of JAVA_HOME and PATH in this order, that is new enough.
func findJava(ctx context.Context) (string, error) {
	problem := errors.New("there is no java in JAVA_HOME or PATH")
	var found []string
	if home := os.Getenv("JAVA_HOME"); home != "" {
		found = append(found, filepath.Join(home, "bin", "java"))
	}
	if java, err := exec.LookPath("java"); err == nil {
		found = append(found, java)
	}
	for _, java := range found {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		out, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
		cancel()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		version, ok := javaVersion(string(out))
		switch {
		case err != nil || !ok:
			problem = fmt.Errorf("%s -version does not say which Java it is", java)
		case version < minJava:
			problem = fmt.Errorf("%s is Java %d", java, version)
		default:
			return java, nil
		}
	}
	return "", problem
}

var quotedVersion = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// javaVersion reads the version from the output of `java -version`: 8 of "1.8.0_402", 17 of
// "17.0.15", 21 of "21".
func javaVersion(text string) (version int, ok bool) {
	match := quotedVersion.FindStringSubmatch(text)
	if match == nil {
		return 0, false
	}
	version, err := strconv.Atoi(match[1])
	return version, err == nil
}

type javaRunner struct {
	java, jars string
	listen     []string
}

// command sets the umask in a shell that then executes Java, because a process can set only its own
// umask. The files that Java creates are private to its user.
//
// Java compiles quickly rather than well, and collects garbage on one thread: in its first half
// minute a database takes half of the processor's time so, and over several minutes the same.
func (r javaRunner) command(port int, data string) []string {
	command := []string{r.java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.library.path=" + r.jars}
	if data != "" {
		_ = os.MkdirAll(scratch(data), 0o700)
		command = append([]string{"/bin/sh", "-c", `umask 077; exec "$@"`, "sh"}, append(command, "-Djava.io.tmpdir="+scratch(data))...)
	}
	classes := launcherDir(r.jars) + string(os.PathListSeparator) + filepath.Join(r.jars, "*")
	return append(append(command, "-cp", classes, mainClass, strings.Join(r.listen, ","),
		"-sharedDb", "-disableTelemetry", "-port", strconv.Itoa(port)), storage(data)...)
}

// scratch is the folder into which the Java program unpacks its SQLite. It stays if the program is
// killed.
func scratch(data string) string { return filepath.Join(data, "tmp") }

func storage(data string) []string {
	if data == "" {
		return []string{"-inMemory"}
	}
	return []string{"-dbPath", data}
}

func (r javaRunner) clean(data string) {
	if data != "" {
		stopLeftover(data)
		_ = os.RemoveAll(scratch(data))
	}
}

// image is the same version of DynamoDB Local, published by AWS.
const image = "amazon/dynamodb-local:" + version

// findDocker returns the docker program if its engine responds.
func findDocker(ctx context.Context) (string, error) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		return "", errors.New("there is no docker in PATH")
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := exec.CommandContext(ctx, docker, "version", "--format", "{{.Server.Version}}").Run(); err != nil {
		return "", errors.New("docker is here, but its engine does not run")
	}
	return docker, nil
}

// pull fetches the image. `docker run` would fetch it too, but silently and within startTimeout.
func pull(ctx context.Context, docker string, say func(string)) error {
	if exec.CommandContext(ctx, docker, "image", "inspect", image).Run() == nil {
		return nil
	}
	say("Fetching the container image " + image)
	var output lastLines
	cmd := exec.CommandContext(ctx, docker, "pull", "-q", image)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("fetching the container image %s: %w: %s", image, err, &output)
	}
	return nil
}

// allowContainer gives the image's own user, which writes to the folder data, access to it, and no
// other user. Running the container as root would leave root's files in a checkout.
func allowContainer(ctx context.Context, docker, data string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	text, err := exec.CommandContext(ctx, docker, "run", "--rm", "--entrypoint", "id", image, "-u").Output()
	uid, notANumber := strconv.Atoi(strings.TrimSpace(string(text)))
	if err := cmp.Or(err, notANumber); err != nil {
		return fmt.Errorf("the user of the container image %s: %w", image, err)
	}
	return allow(data, uid)
}

type dockerRunner struct {
	docker, name string
	listen       []string
}

// command publishes the port on the addresses of listen alone.
func (r dockerRunner) command(port int, data string) []string {
	command := []string{r.docker, "run", "--rm", "--name", r.name}
	for _, address := range r.listen {
		command = append(command, "-p", net.JoinHostPort(address, strconv.Itoa(port))+":8000")
	}
	inside := ""
	if data != "" {
		inside = "/data"
		command = append(command, "-v", data+":"+inside)
	}
	return append(append(command, image, "-jar", "DynamoDBLocal.jar",
		"-sharedDb", "-disableTelemetry", "-port", "8000"), storage(inside)...)
}

// clean removes the container, which outlives a docker program that was killed.
func (r dockerRunner) clean(string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_ = exec.CommandContext(ctx, r.docker, "rm", "--force", r.name).Run()
}

// containerName is the same for the same data, and unique for a database in memory.
func containerName(data string) string {
	if data == "" {
		return "marketmeter-dynamodb-" + strings.ToLower(rand.Text()[:12])
	}
	sum := sha256.Sum256([]byte(data))
	return fmt.Sprintf("marketmeter-dynamodb-%x", sum[:6])
}
