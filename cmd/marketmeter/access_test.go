package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"

	"github.com/marketmeter/marketmeter/internal/programtest"
)

// refusing is a listener that refuses each request as AWS does, with the code and the message.
func refusing(t *testing.T, code, message string) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	body, err := json.Marshal(map[string]string{"__type": code, "message": message})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.Header().Set("X-Amz-Crc32", fmt.Sprint(crc32.ChecksumIEEE(body)))
		w.Header().Set("X-Amzn-Requestid", "6O0D5B3K1Q5N6JEXAMPLE")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	return server.URL, requests
}

const coral, dynamo = "com.amazon.coral.service#", "com.amazonaws.dynamodb.v20120810#"

// refusals are responses of AWS and DynamoDB, and the message that the operator must read.
var refusals = []struct{ name, code, message, want string }{
	{"no table", dynamo + "ResourceNotFoundException", "Requested resource not found", "there is no table mine"},
	{"an expired token", coral + "ExpiredTokenException", "The security token included in the request is expired", "the AWS credentials have expired: get new ones"},
	{"an unknown access key", coral + "UnrecognizedClientException", "The security token included in the request is invalid.", "AWS does not know the access key"},
	{
		"a wrong secret", coral + "InvalidSignatureException",
		"The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
		"check that AWS_SECRET_ACCESS_KEY belongs to the access key",
	},
	{
		"a slow clock", coral + "InvalidSignatureException", "Signature expired: 20261126T100000Z is now earlier than 20261126T215500Z (20261126T220000Z - 5 min.)",
		"the clock of this machine is wrong",
	},
	{
		"a fast clock", coral + "InvalidSignatureException", "Signature not yet current: 20261126T230000Z is still later than 20261126T220500Z (20261126T220000Z + 5 min.)",
		"the clock of this machine is wrong",
	},
	{
		"a denied permission", coral + "AccessDeniedException",
		"User: arn:aws:iam::123456789012:user/ann is not authorized to perform: dynamodb:X on resource: arn:aws:dynamodb:us-east-1:123456789012:table/mine because no identity-based policy allows the dynamodb:X action",
		"lack a permission on table mine",
	},
	{"no signature", coral + "MissingAuthenticationTokenException", "Request is missing Authentication Token", "AWS can't read the signature"},
	{"no sign-up", coral + "SubscriptionRequiredException", "The AWS Access Key Id needs a subscription for the service", "the AWS account can't use DynamoDB"},
}

// everyCommand lists each command that uses a table, with its standard input.
var everyCommand = []struct {
	args  []string
	stdin string
}{
	{[]string{"import", "--org", "o1", "-"}, transfertest.Line("g1", "serialID", "3")},
	{[]string{"import", "--org", "o1", "-"}, transfertest.Line("g1") + transfertest.Line("g2")},
	{[]string{"export", "--org", "o1"}, ""},
	{[]string{"export", "--org", "o1", "--format", "csv"}, ""},
	{[]string{"key", "create", "--org", "o1"}, ""},
	{[]string{"key", "list", "--org", "o1"}, ""},
	{[]string{"key", "rotate", "--org", "o1", "abcdef0123456789"}, ""},
	{[]string{"key", "revoke", "--org", "o1", "abcdef0123456789"}, ""},
	{[]string{"serve"}, ""},
	{[]string{"with-dynamodb", "--sample", "true"}, ""},
}

// runIn runs a command with only these variables as its environment.
func runIn(t *testing.T, variables map[string]string, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	environment := map[string]string{"ADDR": "127.0.0.1:0", "LOCAL_DIR": t.TempDir()}
	for name, value := range variables {
		environment[name] = value
	}
	var out, errs programtest.Output
	status = run(t.Context(), args, func(name string) string { return environment[name] }, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

func TestCommands_SayAtOnceWhatAWSRefuses(t *testing.T) {
	t.Parallel()
	for _, refusal := range refusals {
		t.Run(refusal.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range everyCommand {
				url, requests := refusing(t, refusal.code, refusal.message)
				status, _, stderr := runIn(t, map[string]string{"DYNAMODB_ENDPOINT": url, "TABLE_NAME": "mine"}, c.stdin, c.args...)
				_, code, _ := strings.Cut(refusal.code, "#")
				if status != 1 || !strings.Contains(stderr, refusal.want) || !strings.Contains(stderr, code+": "+refusal.message) {
					t.Errorf("%q: exit status %d\n%swant 1, and: %s", c.args, status, stderr, refusal.want)
				}
				if strings.Contains(stderr, "try again") || requests.Load() > 2*6 { // 2 lines, 6 attempts of the SDK
					t.Errorf("%q: %d requests\n%swant it not to try again", c.args, requests.Load(), stderr)
				}
			}
		})
	}
}

// A name that does not exist in the region and a region that the table is not in look alike.
func TestExplain_MissingTableNamesTheRegion(t *testing.T) {
	t.Parallel()
	url, _ := refusing(t, dynamo+"ResourceNotFoundException", "Requested resource not found")
	tbl := table.New(dynamoclient.New(dynamoclient.Options{
		Region: "eu-west-1", Endpoint: url, Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
		Explain: stack.Location{Name: "mine", Region: "eu-west-1"}.Explain,
	}), "mine")
	var stderr bytes.Buffer
	status := program{stderr: &stderr}.exit("marketmeter x", tbl.Ping(t.Context()))
	const want = "marketmeter x: there is no table mine in AWS region eu-west-1: either the name is wrong or the region; " +
		"check TABLE_NAME and AWS_REGION against the stack's output TableName and its region (ResourceNotFoundException: Requested resource not found)\n"
	if status != 1 || stderr.String() != want {
		t.Errorf("%d\n%swant\n%s", status, &stderr, want)
	}
}

func TestCommands_SayAtOnceWhatCannotBeReached(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	for name, test := range map[string]struct{ endpoint, want string }{
		"nothing listens":      {"http://127.0.0.1:1", "127.0.0.1:1"},
		"no such host":         {"http://dynamodb.invalid", "dynamodb.invalid"},
		"no URL":               {"127.0.0.1:8000", "it must be a URL, as in http://127.0.0.1:8000"},
		"another server":       {other.URL, "does not respond as DynamoDB does"},
		"an unknown authority": {untrusted.URL, "is not trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range everyCommand {
				want := test.want
				if c.args[0] == "serve" || c.args[0] == "with-dynamodb" {
					want = "" // serve connects first and reports the failure in its own words
				}
				status, _, stderr := runIn(t, map[string]string{"DYNAMODB_ENDPOINT": test.endpoint, "TABLE_NAME": "mine"}, c.stdin, c.args...)
				if status != 1 || !strings.Contains(stderr, want) || strings.Contains(stderr, "try again") {
					t.Errorf("%q: exit status %d\n%swant 1, and: %s", c.args, status, stderr, want)
				}
			}
		})
	}
}

// The environment of these commands is the process's own, because the SDK reads it.
func TestCommands_SayAtOnceThatThereAreNoCredentials(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never responds: a metadata service out of reach
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	refused := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refused.Close)
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_REGION": "eu-west-1",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT": "", "AWS_EC2_METADATA_DISABLED": "",
	} {
		t.Setenv(name, value)
	}
	for _, test := range []struct {
		name      string
		variables map[string]string
	}{
		{"no metadata service", map[string]string{"AWS_EC2_METADATA_DISABLED": "true"}},
		{"a metadata service without a role", map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": refused.URL}},
		{"a metadata service that is silent", map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://" + silent.Addr().String()}},
		{"half of the credentials", map[string]string{"AWS_EC2_METADATA_DISABLED": "true", "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, value := range test.variables {
				t.Setenv(name, value)
			}
			for _, c := range everyCommand {
				if c.args[0] == "serve" || c.args[0] == "with-dynamodb" {
					continue // they use no AWS
				}
				status, _, stderr := runIn(t, map[string]string{"TABLE_NAME": "mine"}, c.stdin, c.args...)
				const want = ": no AWS credentials to use table mine in AWS region eu-west-1 with: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
				if status != 1 || !strings.Contains(stderr, want) || strings.Contains(stderr, "try again") || strings.Count(stderr, "\n") != 2 {
					t.Errorf("%q: exit status %d\n%swant 1, and: %s", c.args, status, stderr, want)
				}
			}
		})
	}
}
