package stack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
)

func TestWriteEnv_KeepsEveryValue(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "new", "env")
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(rapid.StringMatching(`[A-Z_]{1,8}`), rapid.StringMatching(`[^\n\x00]*`)).Draw(t, "variables")
		var variables []Variable
		for name, value := range want {
			variables = append(variables, Variable{name, value})
		}
		if err := WriteEnv(file, variables); err != nil {
			t.Fatal(err)
		}
		got, err := ReadEnv(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("beside the file: %v, %v", left, err)
	}
}

func TestOpen_ChoosesTheStack(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	running := t.TempDir()
	stopped := t.TempDir()
	for dir, endpoint := range map[string]string{running: "http://" + listener.Addr().String(), stopped: "http://127.0.0.1:1"} {
		if err := WriteEnv(filepath.Join(dir, "env"), Stack{Endpoint: endpoint, Table: "local"}.Variables()); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name        string
		environment map[string]string
		want        string // in the error or, if there is none, on standard error
	}{
		{"the environment's DynamoDB", map[string]string{"TABLE_NAME": "t", "DYNAMODB_ENDPOINT": "http://127.0.0.1:1", "LOCAL_DIR": running}, "table t at http://127.0.0.1:1, from DYNAMODB_ENDPOINT"},
		{"the environment's DynamoDB, its table by default", map[string]string{"DYNAMODB_ENDPOINT": "http://127.0.0.1:1", "LOCAL_DIR": running}, "table marketmeter at http://127.0.0.1:1, from DYNAMODB_ENDPOINT"},
		{"the local stack", map[string]string{"LOCAL_DIR": running}, "table local at http://" + listener.Addr().String()},
		{"a local stack that has stopped", map[string]string{"LOCAL_DIR": stopped}, "does not run"},
		{"none", map[string]string{"LOCAL_DIR": t.TempDir()}, "Set TABLE_NAME"},
	} {
		var stderr bytes.Buffer
		tbl, err := Open(t.Context(), func(name string) string { return test.environment[name] }, &stderr)
		said := stderr.String()
		if err != nil {
			said = err.Error()
		}
		if (tbl == nil) != (err != nil) || !strings.Contains(said, test.want) {
			t.Errorf("%s: table %v, error %v, said %q; want %q", test.name, tbl != nil, err, stderr.String(), test.want)
		}
	}
}

func TestOpen_NeedsARegionInAWS(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": "",
		"AWS_DEFAULT_REGION": "", "AWS_REGION": "", "DYNAMODB_ENDPOINT": "", "TABLE_NAME": "mine",
	} {
		t.Setenv(name, value)
	}
	var stderr bytes.Buffer
	if _, err := Open(t.Context(), os.Getenv, &stderr); err == nil || !strings.Contains(err.Error(), "Set AWS_REGION") {
		t.Errorf("without a region: %v; want an error that says to set it", err)
	}
	t.Setenv("AWS_REGION", "eu-central-1")
	if _, err := Open(t.Context(), os.Getenv, &stderr); err != nil || stderr.String() != "table mine in AWS region eu-central-1\n" {
		t.Errorf("with a region: %v, said %q", err, &stderr)
	}
}

func TestKeyring_NamesTheOperator(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"local": "", "AKIAEXAMPLE": " with access key AKIAEXAMPLE"} {
		target := &Target{Credentials: credentials.NewStaticCredentialsProvider(id, "secret", ""), timeout: time.Minute}
		ring, err := target.Keyring(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		who, key, _ := strings.Cut(ring.Operator, " with ")
		if name, host, at := strings.Cut(who, "@"); !at || name == "" || host == "" || strings.TrimPrefix(want, " with ") != key {
			t.Errorf("with %s it is %q; want user@host%s", id, ring.Operator, want)
		}
	}
	target := &Target{Credentials: credentials.NewStaticCredentialsProvider("", "", ""), timeout: time.Minute}
	if _, err := target.Keyring(t.Context(), nil); err == nil || !strings.HasPrefix(err.Error(), "the AWS credentials: ") {
		t.Errorf("without credentials: %v", err)
	}
}

func TestOpen_FindsTheRoleOfEC2(t *testing.T) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "",
	} {
		t.Setenv(name, value)
	}
	role := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			_, _ = io.WriteString(w, "token")
		case strings.HasSuffix(r.URL.Path, "/operator"):
			_, _ = io.WriteString(w, `{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ASIAROLE","SecretAccessKey":"s","Token":"t","AccountId":"123456789012","LastUpdated":"2026-01-01T00:00:00Z","Expiration":"2099-01-01T00:00:00Z"}`)
		default:
			_, _ = io.WriteString(w, "operator")
		}
	}))
	t.Cleanup(role.Close)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", role.URL)
	opened, err := openInAWS(t.Context(), "mine", forCommands)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := opened.Credentials.Retrieve(t.Context()); err != nil || found.AccessKeyID != "ASIAROLE" {
		t.Errorf("on EC2: %s, %v", found.AccessKeyID, err)
	}
}

func TestOpen_RefusesAnInvalidRegion(t *testing.T) {
	for _, region := range []string{"us east", "eu-west-1/", "-", "eu_west_1", strings.Repeat("a", 64)} {
		t.Setenv("AWS_REGION", region)
		if _, err := openInAWS(t.Context(), "mine", forCommands); err == nil || !strings.Contains(err.Error(), "it must be the name of one") {
			t.Errorf("AWS_REGION=%q: %v", region, err)
		}
	}
}

func TestOpen_NamesTheMissingProfile(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_PROFILE", "nobody")
	if _, err := openInAWS(t.Context(), "mine", forCommands); err == nil || !strings.Contains(err.Error(), "check AWS_PROFILE") || !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
}

func TestDeadlinesFor_LeaveTimeForARetry(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Deadlines{
		"": {20 * time.Second, time.Minute}, "3s": {time.Second, 3 * time.Second}, "1h": {20 * time.Minute, time.Hour},
	} {
		got, err := DeadlinesFor(func(string) string { return text })
		if err != nil || got != want || 2*got.Attempt >= got.Call {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"0", "999ms", "61m", "-1s", "60", "soon"} {
		environment := map[string]string{"DYNAMODB_TIMEOUT": text, "DYNAMODB_ENDPOINT": "http://127.0.0.1:1"}
		_, err := Open(t.Context(), func(name string) string { return environment[name] }, io.Discard)
		if want := fmt.Sprintf("DYNAMODB_TIMEOUT is %q: it must be 1s to 1h, as in 30s or 5m", text); err == nil || err.Error() != want {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}

func TestExplain_NamesTheCause(t *testing.T) {
	t.Parallel()
	notFound := Location{Name: "mine", Region: "eu-west-1"}.Explain(&smithy.GenericAPIError{Code: "ResourceNotFoundException", Message: "Requested resource not found"})
	const want = "there is no table mine in AWS region eu-west-1: either the name is wrong or the region; " +
		"check TABLE_NAME and AWS_REGION against the stack's output TableName and its region (ResourceNotFoundException: Requested resource not found)"
	if access, ok := errors.AsType[*AccessError](notFound); !ok || access.Sentence != want {
		t.Errorf("%v; want %s", notFound, want)
	}
	api := func(code, message string) error { return &smithy.GenericAPIError{Code: code, Message: message} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{&dynamoclient.CredentialsError{Cause: api("ExpiredToken", "the token is expired")}, "the AWS credentials have expired"},
		{&dynamoclient.CredentialsError{Cause: api("AccessDenied", "not authorized to perform: sts:AssumeRole")}, "may not get those to use table t"},
		{&dynamoclient.CredentialsError{Cause: api("SignatureDoesNotMatch", "no match")}, "AWS refuses the signature"},
		{&dynamoclient.CredentialsError{Cause: errors.New("no providers")}, "no AWS credentials to use table t"},
		{&smithy.DeserializationError{Err: errors.New("invalid character '<'")}, "http://127.0.0.1:1 does not respond as DynamoDB does"},
		{api("ValidationException", "Invalid table/index name.  Table/index names must be between 3 and 255 characters"), `TABLE_NAME is "t"`},
	} {
		err := Location{Name: "t", Region: "eu-central-1", Endpoint: "http://127.0.0.1:1"}.Explain(fmt.Errorf("operation error: %w", c.err))
		if access, ok := errors.AsType[*AccessError](err); !ok || !strings.Contains(access.Sentence, c.want) {
			t.Errorf("%v is %v; want %q", c.err, err, c.want)
		}
	}
}
