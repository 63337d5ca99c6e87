package dynamoclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// attempt is long enough for one of six attempts at DynamoDB Local while other tests run.
// shortAttempt is for attempts that never succeed.
const (
	attempt      = 3 * time.Second
	shortAttempt = time.Second
)

// patient returns a context that ends all that hangs in these tests.
func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// together runs the cases at the same time, because they only wait, and fails with the reasons that
// they return.
func together(t *testing.T, cases map[string]func() string) {
	t.Helper()
	var all sync.WaitGroup
	for name, run := range cases {
		all.Go(func() {
			if wrong := run(); wrong != "" {
				t.Errorf("%s: %s", name, wrong)
			}
		})
	}
	all.Wait()
}

func clientOf(endpoint string, attempt, call time.Duration) *dynamodb.Client {
	return dynamoclient.New(dynamoclient.Options{
		Region: localdb.Region, Endpoint: endpoint, Transport: dynamoclient.NewTransport(attempt), Call: call,
		Credentials: credentials.NewStaticCredentialsProvider(localdb.AccessKeyID, localdb.SecretAccessKey, ""),
	})
}

func TestStalledResponse_IsRetried(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	item := map[string]types.AttributeValue{
		"PK": key["PK"], "SK": key["SK"], "text": &types.AttributeValueMemberS{Value: strings.Repeat("x", 20<<10)},
	}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
		t.Fatal(err)
	}
	ctx := patient(t)
	query := &dynamodb.QueryInput{
		TableName: &name, KeyConditionExpression: ptr("PK = :p"), ExpressionAttributeValues: map[string]types.AttributeValue{":p": key["PK"]},
	}
	stalls := map[string]tabletest.Stall{
		"after half of a large body": func(to net.Conn, head, body []byte) { _, _ = to.Write(append(head, body[:len(body)/2]...)) },
	}
	for how, stall := range tabletest.Stalls {
		stalls[how] = stall
	}
	cases := map[string]func() string{}
	for how, stall := range stalls {
		over := func(call func(*dynamodb.Client) error) func() string {
			return func() string {
				endpoint, requests := tabletest.StallingProxy(t, firstOnly(stall))
				if err := call(clientOf(endpoint, attempt, 0)); err != nil || requests() < 2 {
					return fmt.Sprintf("after %d requests: %v", requests(), err)
				}
				return ""
			}
		}
		cases["Query "+how] = over(func(client *dynamodb.Client) error {
			out, err := client.Query(ctx, query)
			if err == nil && len(out.Items) != 1 {
				return fmt.Errorf("%d items", len(out.Items))
			}
			return err
		})
		cases["Query into the caller's memory "+how] = over(func(client *dynamodb.Client) error {
			response := []byte("of the query before")
			_, err := client.Query(dynamoclient.TakeAnswer(ctx, &response), query)
			if err == nil && !strings.Contains(string(response), `"Count":1`) {
				return fmt.Errorf("%.100q", response)
			}
			return err
		})
		cases["PutItem "+how] = over(func(client *dynamodb.Client) error {
			_, err := client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &name, Item: item})
			return err
		})
		cases["error "+how] = over(func(client *dynamodb.Client) error {
			missing := name + "-missing"
			_, err := client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &missing, Key: key})
			if _, ok := errors.AsType[*types.ResourceNotFoundException](err); ok {
				return nil
			}
			return fmt.Errorf("no ResourceNotFoundException but %w", err)
		})
	}
	together(t, cases)
}

func firstOnly(stall tabletest.Stall) func(int) tabletest.Stall {
	return func(n int) tabletest.Stall {
		if n == 0 {
			return stall
		}
		return nil
	}
}

func ptr(s string) *string { return &s }

// The client has only the default deadline.
func TestStalledResponse_IsRetriedByDefault(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	endpoint, requests := tabletest.StallingProxy(t, firstOnly(tabletest.Stalls["after a byte of the body"]))
	_, err := localdb.NewClient(endpoint).GetItem(patient(t), &dynamodb.GetItemInput{TableName: &name, Key: key})
	if err != nil || requests() < 2 {
		t.Errorf("after %d requests: %v", requests(), err)
	}
}

func TestStalledResponses_EndTheCall(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	ctx, cases := patient(t), map[string]func() string{}
	for how, stall := range tabletest.Stalls {
		for limit, call := range map[string]time.Duration{"by its attempts": 0, "by its deadline": 3 * shortAttempt} {
			cases[how+" "+limit] = func() string {
				endpoint, requests := tabletest.StallingProxy(t, func(int) tabletest.Stall { return stall })
				_, err := clientOf(endpoint, shortAttempt, call).GetItem(ctx, &dynamodb.GetItemInput{TableName: &name, Key: key})
				want := "no whole response from DynamoDB within 1s"
				if call > 0 {
					want = "DynamoDB did not respond within 3s"
				}
				if err == nil || !strings.Contains(err.Error(), want) || requests() > 6 {
					return fmt.Sprintf("after %d requests: %v; want %q", requests(), err, want)
				}
				return ""
			}
		}
	}
	together(t, cases)
}

// A call that the caller's context ends is not retried, nor reported as a deadline of the client.
func TestStalledResponse_EndsWithTheContext(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	patience, cases := patient(t), map[string]func() string{}
	for how, stall := range tabletest.Stalls {
		cases[how] = func() string {
			ctx, cancel := context.WithCancel(patience)
			endpoint, requests := tabletest.StallingProxy(t, func(int) tabletest.Stall {
				cancel()
				return stall
			})
			_, err := clientOf(endpoint, attempt, time.Hour).GetItem(ctx, &dynamodb.GetItemInput{TableName: &name, Key: key})
			if !errors.Is(err, context.Canceled) || requests() != 1 {
				return fmt.Sprintf("after %d requests: %v", requests(), err)
			}
			return ""
		}
	}
	together(t, cases)
}

// A page that comes slowly but steadily is not cut.
func TestSlowResponse_IsRead(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	item := map[string]types.AttributeValue{
		"PK": key["PK"], "SK": key["SK"], "text": &types.AttributeValueMemberS{Value: strings.Repeat("x", 350<<10)},
	}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
		t.Fatal(err)
	}
	endpoint, requests := tabletest.StallingProxy(t, func(int) tabletest.Stall {
		return func(to net.Conn, head, body []byte) {
			_, _ = to.Write(head)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for len(body) > 0 {
				n := min(len(body), 5<<10)
				_, _ = to.Write(body[:n])
				body = body[n:]
				<-tick.C
			}
		}
	})
	out, err := clientOf(endpoint, 20*time.Second, 0).GetItem(patient(t), &dynamodb.GetItemInput{TableName: &name, Key: key})
	if err != nil || len(out.Item) != 3 || requests() != 1 {
		t.Errorf("after %d requests: %v", requests(), err)
	}
}

// The transport alone, with a server that is not DynamoDB: its time runs until the body is closed.
func TestTransport_BoundsTheBody(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "11")
		fmt.Fprint(w, "hello")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	request, err := http.NewRequestWithContext(patient(t), http.MethodPost, "http://"+listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := dynamoclient.NewTransport(500 * time.Millisecond).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if string(text) != "hello" || err == nil || err.Error() != "no whole response from DynamoDB within 500ms" {
		t.Errorf("%q, %v", text, err)
	}
}
