package awscall_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/aws"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
)

func client(key, secret, token string) *awscall.Client {
	return &awscall.Client{
		Credentials: awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
			return awssdk.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: token}, nil
		}),
		HTTP: exchange.NewClient(nil, 0), Now: time.Now,
	}
}

// moto is moto's server, with the calls by which a test prepares it.
type moto struct {
	t      *testing.T
	url    string
	client *awscall.Client
}

func startMoto(t *testing.T) *moto {
	return &moto{t, programtest.Moto(t), client("AKIDEXAMPLE", "planted-own-secret", "")}
}

func (m *moto) do(call awscall.Call, in, out any) {
	m.t.Helper()
	call.URL, call.Region = m.url, "us-east-1"
	if err := m.client.JSON(context.Background(), call, in, out); err != nil {
		m.t.Fatal(call.Target, err)
	}
}

func (m *moto) secret(name, value string) (arn string) {
	m.t.Helper()
	var out struct{ ARN string }
	m.do(awscall.Call{Service: "secretsmanager", ContentType: "application/x-amz-json-1.1", Target: "secretsmanager.CreateSecret"},
		map[string]string{"Name": name, "SecretString": value}, &out)
	return out.ARN
}

func (m *moto) sqs(operation string, in, out any) {
	m.t.Helper()
	m.do(awscall.Call{Service: "sqs", ContentType: "application/x-amz-json-1.0", Target: "AmazonSQS." + operation}, in, out)
}

func (m *moto) queue(name string, attributes map[string]string) *awscall.Queue {
	m.t.Helper()
	var out struct {
		QueueURL string `json:"QueueUrl"`
	}
	m.sqs("CreateQueue", map[string]any{"QueueName": name, "Attributes": attributes}, &out)
	return &awscall.Queue{Client: m.client, URL: out.QueueURL, Region: "us-east-1"}
}

// receive returns what is visible in the queue, and deletes it.
func (m *moto) receive(q *awscall.Queue) (bodies []string) {
	m.t.Helper()
	for {
		var out struct {
			Messages []struct{ Body, ReceiptHandle string }
		}
		m.sqs("ReceiveMessage", map[string]any{"QueueUrl": q.URL, "MaxNumberOfMessages": 10}, &out)
		if len(out.Messages) == 0 {
			slices.Sort(bodies)
			return bodies
		}
		var entries []map[string]string
		for i, message := range out.Messages {
			bodies = append(bodies, message.Body)
			entries = append(entries, map[string]string{"Id": strconv.Itoa(i), "ReceiptHandle": message.ReceiptHandle})
		}
		var deleted struct{ Successful []struct{} }
		m.sqs("DeleteMessageBatch", map[string]any{"QueueUrl": q.URL, "Entries": entries}, &deleted)
		if len(deleted.Successful) != len(entries) {
			m.t.Fatalf("%d of %d messages were deleted", len(deleted.Successful), len(entries))
		}
	}
}

// What is sent by hand is what moto's server takes for the calls of AWS's API.
func TestMoto_TakesTheCalls(t *testing.T) {
	m := startMoto(t)
	t.Run("Secret", func(t *testing.T) {
		arn := m.secret("marketmeter/acme/azure", `planted "secret" ü`)
		secrets := &awscall.Secrets{Client: m.client, Endpoint: m.url}
		for range 2 {
			if got, err := secrets.Secret(t.Context(), arn); got != `planted "secret" ü` || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		}
		_, err := secrets.Secret(t.Context(), arn+"x")
		if err == nil || !strings.Contains(err.Error(), "ResourceNotFoundException") || errors.Is(err, reporting.ErrSecretUnavailable) {
			t.Error(err)
		}
	})
	t.Run("Queue", func(t *testing.T) {
		q := m.queue("plan", nil)
		var sent []string
		for i := range 23 {
			sent = append(sent, fmt.Sprintf(`{"hint":"%02d <&ü>"}`, i))
		}
		if err := q.Send(t.Context(), sent, 0); err != nil {
			t.Fatal(err)
		}
		if got := m.receive(q); !slices.Equal(got, sent) {
			t.Errorf("%d messages: %q", len(got), got)
		}
		if err := q.Send(t.Context(), []string{"later"}, 20*time.Minute); err != nil { // more than SQS accepts
			t.Fatal(err)
		}
		if got := m.receive(q); len(got) != 0 {
			t.Errorf("visible before the delay: %q", got)
		}
		none := &awscall.Queue{Client: m.client, URL: q.URL + "-none", Region: "us-east-1"}
		err := none.Send(t.Context(), sent, 0)
		if err == nil || !strings.Contains(err.Error(), "10 of 10 messages were not sent") || !strings.Contains(err.Error(), "QueueDoesNotExist") {
			t.Error(err)
		}
	})
	t.Run("Queue with a delay of its own", func(t *testing.T) {
		q := m.queue("delayed", map[string]string{"DelaySeconds": "900"})
		if err := q.Send(t.Context(), []string{"a", "b"}, 0); err != nil {
			t.Fatal(err)
		}
		if got := m.receive(q); len(got) != 0 {
			t.Errorf("visible before the queue's delay: %q", got)
		}
		const delayed = "ApproximateNumberOfMessagesDelayed"
		var out struct{ Attributes map[string]string }
		m.sqs("GetQueueAttributes", map[string]any{"QueueUrl": q.URL, "AttributeNames": []string{delayed}}, &out)
		if n := out.Attributes[delayed]; n != "2" {
			t.Errorf("%s messages become visible later; want 2", n)
		}
	})
	t.Run("AssumeRole", func(t *testing.T) {
		assumed := aws.AssumeRole(m.client.Credentials, aws.Role{
			ARN: "arn:aws:iam::111122223333:role/marketmeter", ExternalID: "marketmeter-1", Region: "us-east-1", Endpoint: m.url, Now: time.Now,
		})
		got, err := assumed.Retrieve(t.Context())
		if err != nil || got.AccessKeyID == "" || got.SessionToken == "" || !got.Expires.After(time.Now()) {
			t.Errorf("key %q until %v, %v", got.AccessKeyID, got.Expires, err)
		}
	})
}

// With its access control on, moto computes the signature of each request by botocore.
func TestMoto_AcceptsTheSignature(t *testing.T) {
	m := startMoto(t)
	arn := m.secret("marketmeter/acme/gcp", "planted")
	queue := m.queue("submit", nil)
	key, secret := m.userThatMay(t)

	allowed := client(key, secret, "")
	read := func(c *awscall.Client) error {
		_, err := (&awscall.Secrets{Client: c, Endpoint: m.url}).Secret(t.Context(), arn)
		return err
	}
	if err := read(allowed); err != nil {
		t.Error(err)
	}
	if err := (&awscall.Queue{Client: allowed, URL: queue.URL, Region: "us-east-1"}).Send(t.Context(), []string{"a b"}, time.Second); err != nil {
		t.Error(err)
	}
	for _, wrong := range []*awscall.Client{client(key, secret+"x", ""), client("AKIDEXAMPLE", secret, "")} {
		if err := read(wrong); err == nil || strings.Contains(err.Error(), "planted") {
			t.Error("wrong credentials:", err)
		}
	}
}

// userThatMay makes a user that may read secrets and send messages, and switches access control on.
func (m *moto) userThatMay(t *testing.T) (key, secret string) {
	t.Helper()
	iam := func(form string) string {
		reply, err := m.client.Do(t.Context(), &awscall.Call{
			URL: m.url, Service: "iam", Region: "us-east-1", ContentType: "application/x-www-form-urlencoded; charset=utf-8", Body: []byte(form + "&Version=2010-05-08"),
		})
		if err != nil || reply.Status != http.StatusOK {
			t.Fatal(err, reply.Status, string(reply.Body))
		}
		return string(reply.Body)
	}
	within := func(text, name string) string {
		_, rest, _ := strings.Cut(text, "<"+name+">")
		value, _, _ := strings.Cut(rest, "<")
		return value
	}
	iam("Action=CreateUser&UserName=worker")
	iam("Action=PutUserPolicy&UserName=worker&PolicyName=p&PolicyDocument=" +
		"%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%5B%22secretsmanager%3AGetSecretValue%22%2C%22sqs%3ASendMessage%22%2C%22sqs%3ASendMessageBatch%22%5D%2C%22Resource%22%3A%22%2A%22%7D%5D%7D")
	made := iam("Action=CreateAccessKey&UserName=worker")
	response, err := http.Post(m.url+"/moto-api/reset-auth", "text/plain", strings.NewReader("0"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return within(made, "AccessKeyId"), within(made, "SecretAccessKey")
}
