package awscall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

const arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:marketmeter/acme/azure-AbCdEf"

// serve serves AWS's responses and returns the address.
func serve(t *testing.T, respond func(w http.ResponseWriter, r *http.Request, body string)) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		respond(w, r, string(body))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestSecrets_RequestIsGetSecretValue(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request, body string) {
		for name, want := range map[string]string{
			"X-Amz-Target": "secretsmanager.GetSecretValue", "Content-Type": "application/x-amz-json-1.1", "X-Amz-Security-Token": "planted-session",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
		// The Region is the secret's.
		if authorization := r.Header.Get("Authorization"); !strings.Contains(authorization, "/eu-west-1/secretsmanager/aws4_request") {
			t.Error(authorization)
		}
		if r.Method != http.MethodPost || r.URL.Path != "/" || body != `{"SecretId":"`+arn+`"}` {
			t.Error(r.Method, r.URL, body)
		}
		fmt.Fprint(w, `{"ARN":"a","SecretString":"value","VersionStages":["AWSCURRENT"]}`)
	})
	secrets := awscall.Secrets{Client: client("AKIDEXAMPLE", "planted-secret", "planted-session"), Endpoint: url + "/"}
	if got, err := secrets.Secret(t.Context(), arn); got != "value" || err != nil {
		t.Error(got, err)
	}
}

// A secret is read again after a minute, and at once if it was forgotten. Failures are not held.
func TestSecrets_AreHeldForAMinute(t *testing.T) {
	var reads atomic.Int32
	url := serve(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		if n := reads.Add(1); n > 1 {
			fmt.Fprintf(w, `{"SecretString":"value %d"}`, n)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	c := client("AKIDEXAMPLE", "planted-secret", "")
	now := time.Now()
	c.Now = func() time.Time { return now }
	secrets := awscall.Secrets{Client: c, Endpoint: url}
	want := func(value string) {
		t.Helper()
		if got, err := secrets.Secret(t.Context(), arn); got != value || (err == nil) != (value != "") {
			t.Errorf("%q, %v; want %q", got, err, value)
		}
	}
	want("")
	want("value 2")
	now = now.Add(59 * time.Second)
	want("value 2")
	now = now.Add(time.Second)
	want("value 3")
	secrets.Forget(arn)
	want("value 4")
	// Many secrets are not held for ever.
	for i := range 200 {
		if _, err := secrets.Secret(t.Context(), arn+fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	want("value 205")
}

func TestSecrets_FailuresAreNamedWithoutSecrets(t *testing.T) {
	for _, c := range []struct {
		status      int
		body, says  string
		unavailable bool
	}{
		{400, `{"__type":"ResourceNotFoundException","Message":"Secrets Manager can't find the specified secret."}`, "ResourceNotFoundException: Secrets Manager can't find", false},
		{400, `{"__type":"com.amazon#AccessDeniedException:http://x","Message":"not authorized planted-secret planted-session"}`, "AccessDeniedException", false},
		{400, `{"__type":"ThrottlingException","message":"Rate exceeded"}`, "ThrottlingException", true},
		{429, ``, "status 429", true},
		{500, `planted-secret`, "status 500", true},
		{200, `{"SecretString":"planted-value`, "the response is cut", true},
		{200, `{"SecretString":{"planted":"planted"}}`, "of another form", true},
		{200, `{"SecretBinary":"cGxhbnRlZA=="}`, "binary", false},
		{200, `{}`, "binary", false},
		{307, ``, "status 307", false},
	} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		secrets := awscall.Secrets{Client: client("AKIDEXAMPLE", "planted-secret", "planted-session"), Endpoint: url}
		got, err := secrets.Secret(t.Context(), arn)
		if got != "" || err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "planted") || errors.Is(err, reporting.ErrSecretUnavailable) != c.unavailable {
			t.Errorf("%d %s: %q, %v", c.status, c.body, got, err)
		}
	}
	secrets := awscall.Secrets{Client: client("AKIDEXAMPLE", "planted-secret", "planted-session"), Endpoint: "http://127.0.0.1:1"}
	if _, err := secrets.Secret(t.Context(), arn); !errors.Is(err, reporting.ErrSecretUnavailable) || strings.Contains(err.Error(), "planted") {
		t.Error(err)
	}
	secrets.Client.Credentials = awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
		return awssdk.Credentials{}, errors.New("no role")
	})
	if _, err := secrets.Secret(t.Context(), arn); err == nil || !strings.Contains(err.Error(), "no role") || errors.Is(err, reporting.ErrSecretUnavailable) {
		t.Error(err)
	}
	// The Region of an ARN is a part of the host: nothing else may get there.
	for _, name := range []string{"", "x", "sandbox/AZURE/x", "arn:aws:secretsmanager:a.example/:111122223333:secret:x", "arn:aws:secretsmanager:a@b:111122223333:secret:x", "arn:aws:s3:us-east-1:111122223333:secret:x"} {
		if _, err := secrets.Secret(t.Context(), name); err == nil || !strings.Contains(err.Error(), "ARN of Secrets Manager") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

type sentEntry struct {
	ID           string `json:"Id"`
	MessageBody  string
	DelaySeconds *int
}

// queueOf serves a queue by respond, which gets the number of the call and its entries. Its calls
// follow each other.
func queueOf(t *testing.T, respond func(w http.ResponseWriter, call int, entries []sentEntry)) *awscall.Queue {
	var mu sync.Mutex
	calls := 0
	url := serve(t, func(w http.ResponseWriter, r *http.Request, body string) {
		var in struct {
			QueueURL string `json:"QueueUrl"`
			Entries  []sentEntry
		}
		if err := json.Unmarshal([]byte(body), &in); err != nil || r.Header.Get("X-Amz-Target") != "AmazonSQS.SendMessageBatch" || r.URL.Path != "/" ||
			!strings.HasSuffix(in.QueueURL, "/111122223333/plan") || !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/sqs/aws4_request") {
			t.Error(err, r.URL, r.Header, body)
		}
		mu.Lock()
		defer mu.Unlock()
		calls++
		respond(w, calls, in.Entries)
	})
	return &awscall.Queue{Client: client("AKIDEXAMPLE", "planted-secret", ""), URL: url + "/111122223333/plan", Region: "eu-west-1"}
}

// storeAll responds that all entries were stored but those that refuse names a fault of.
func storeAll(w http.ResponseWriter, entries []sentEntry, fault func(sentEntry) string) {
	out := map[string][]map[string]any{}
	for _, e := range entries {
		switch f := fault(e); f {
		case "":
			out["Successful"] = append(out["Successful"], map[string]any{"Id": e.ID, "MessageId": "m"})
		case "missing":
		default:
			out["Failed"] = append(out["Failed"], map[string]any{"Id": e.ID, "Code": f, "Message": "why", "SenderFault": f == "InvalidMessageContents"})
		}
	}
	_ = json.NewEncoder(w).Encode(out)
}

func numbered(n int) (bodies []string) {
	for i := range n {
		bodies = append(bodies, fmt.Sprint(i))
	}
	return bodies
}

func TestQueue_SendsBatches(t *testing.T) {
	var batches []int
	q := queueOf(t, func(w http.ResponseWriter, _ int, entries []sentEntry) {
		batches = append(batches, len(entries))
		for _, e := range entries {
			if e.DelaySeconds == nil || *e.DelaySeconds != 2 {
				t.Errorf("the delay is not 2 s: %+v", e)
			}
		}
		storeAll(w, entries, func(sentEntry) string { return "" })
	})
	if err := q.Send(t.Context(), numbered(21), 1001*time.Millisecond); err != nil || !slices.Equal(slices.Sorted(slices.Values(batches)), []int{1, 10, 10}) {
		t.Error(err, batches)
	}
	batches = nil
	large := strings.Repeat("x", 100<<10)
	if err := q.Send(t.Context(), []string{large, large, large, large, large}, 1001*time.Millisecond); err != nil || !slices.Equal(slices.Sorted(slices.Values(batches)), []int{1, 2, 2}) {
		t.Error(err, batches)
	}
	if err := q.Send(t.Context(), nil, 0); err != nil {
		t.Error(err)
	}
}

// A delay of 0 is not sent: it would override the queue's own.
func TestQueue_DelayIsInWholeSeconds(t *testing.T) {
	sent := ""
	q := queueOf(t, func(w http.ResponseWriter, _ int, entries []sentEntry) {
		if sent = "none"; entries[0].DelaySeconds != nil {
			sent = fmt.Sprint(*entries[0].DelaySeconds)
		}
		storeAll(w, entries, func(sentEntry) string { return "" })
	})
	for delay, want := range map[time.Duration]string{
		-time.Second: "none", 0: "none", 1: "1", time.Second: "1", time.Second + 1: "2", 15 * time.Minute: "900", time.Hour: "900",
	} {
		if err := q.Send(t.Context(), []string{"a"}, delay); err != nil || sent != want {
			t.Errorf("%v: got %s, want %s, %v", delay, sent, want, err)
		}
	}
}

// Only what was not stored is sent again. What SQS refuses for good, and what it never stores, is
// in the error; the rest is sent all the same.
func TestQueue_PartialFailures(t *testing.T) {
	stored := map[string]int{}
	q := queueOf(t, func(w http.ResponseWriter, call int, entries []sentEntry) {
		storeAll(w, entries, func(e sentEntry) string {
			switch {
			case e.MessageBody == "3":
				return "InvalidMessageContents"
			case e.MessageBody == "4":
				return "InternalError"
			case call == 1 && e.MessageBody == "5":
				return "missing"
			case call == 1 && e.MessageBody == "6":
				return "InternalError"
			}
			stored[e.MessageBody]++
			return ""
		})
	})
	err := q.Send(t.Context(), numbered(12), 0)
	if err == nil || !strings.Contains(err.Error(), "2 of 10 messages were not sent to SQS: InternalError: why") {
		t.Error(err)
	}
	for i := range 12 {
		if want := 1; (i != 3 && i != 4) != (stored[fmt.Sprint(i)] == want) {
			t.Errorf("message %d was stored %d times", i, stored[fmt.Sprint(i)])
		}
	}
}

func TestQueue_FailuresOfACall(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		calls  int
		says   string
	}{
		{503, "", 3, "status 503"},
		{400, `{"__type":"com.amazonaws.sqs#RequestThrottled","message":"slow"}`, 3, "RequestThrottled"},
		{200, `{"Successful":[`, 3, "the response is cut"},
		{200, `{}`, 3, "does not name them"},
		{400, `{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"planted-secret"}`, 1, "QueueDoesNotExist"},
		{403, `{"__type":"AccessDeniedException","Message":"no"}`, 1, "AccessDeniedException"},
	} {
		calls := 0
		q := queueOf(t, func(w http.ResponseWriter, call int, _ []sentEntry) {
			calls = call
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		err := q.Send(t.Context(), []string{"a", "b"}, 0)
		if err == nil || calls != c.calls || !strings.Contains(err.Error(), "2 of 2 messages") || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%d %s: %d calls, %v", c.status, c.body, calls, err)
		}
	}
}

func TestQueue_FailedCallIsRepeated(t *testing.T) {
	q := queueOf(t, func(w http.ResponseWriter, call int, entries []sentEntry) {
		if call == 1 {
			panic(http.ErrAbortHandler)
		}
		storeAll(w, entries, func(sentEntry) string { return "" })
	})
	if err := q.Send(t.Context(), []string{"a"}, 0); err != nil {
		t.Error(err)
	}
}

func TestQueue_StopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	q := queueOf(t, func(w http.ResponseWriter, call int, _ []sentEntry) {
		calls = call
		cancel()
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if err := q.Send(ctx, []string{"a"}, 0); err == nil || calls != 1 {
		t.Error(calls, err)
	}
}
