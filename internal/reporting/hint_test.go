package reporting_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
)

var hintHour = time.Date(2026, 11, 27, 4, 0, 0, 0, time.UTC)

func planHint(org, entitlement string) reporting.Hint {
	return reporting.Hint{Place: reports.Place{Organization: metering.OrgID(org), Entitlement: metering.EntitlementID(entitlement), Hour: hintHour}}
}

func submitHint(org, lane string) reporting.Hint {
	return reporting.Hint{Place: reports.Place{Organization: metering.OrgID(org)}, Lane: lane}
}

func TestHint_IsJSON(t *testing.T) {
	t.Parallel()
	for body, h := range map[string]reporting.Hint{
		`{"organization":"acme","entitlement":"e1","hour":"2026-11-27T04"}`:                planHint("acme", "e1"),
		`{"organization":"acme","lane":"0123abc"}`:                                         submitHint("acme", "0123abc"),
		`{"organization":"\u00fc\ud83d\ude00","entitlement":"a#b","hour":"2026-11-27T04"}`: planHint("ü😀", "a#b"),
	} {
		if got := reporting.EncodeHint(h); got != body {
			t.Errorf("%s, want %s", got, body)
		}
	}
}

// For all identifiers, a hint is read as it was sent, in characters that SQS accepts.
func TestHint_IsReadAsSent(t *testing.T) {
	t.Parallel()
	identifier := rapid.OneOf(
		rapid.StringOfN(rapid.RuneFrom([]rune("a%<>&\"\\#\u2028\uFFFD\uFFFE\uFFFF\U0001FFFF\U0010FFFF😀")), 1, 8, -1),
		rapid.StringN(1, 20, 100),
	).Filter(func(id string) bool {
		_, err := metering.StoredOrgID(id)
		return err == nil
	})
	rapid.Check(t, func(rt *rapid.T) {
		h := planHint(identifier.Draw(rt, "organization"), identifier.Draw(rt, "entitlement"))
		h.Place.Hour = hintHour.Add(time.Duration(rapid.IntRange(-9999, 9999).Draw(rt, "hours")) * time.Hour)
		if rapid.Bool().Draw(rt, "submit") {
			h = submitHint(string(h.Place.Organization), identifier.Draw(rt, "lane"))
		}
		body := reporting.EncodeHint(h)
		if strings.ContainsFunc(body, func(r rune) bool { return r < ' ' || r > '~' }) {
			rt.Fatalf("%q has characters that SQS may refuse", body)
		}
		if got, err := reporting.DecodeHint(body); err != nil || got != h {
			rt.Fatalf("%s: %v, %v, want %v", body, got, err, h)
		}
	})
}

func TestHint_AnythingElseIsRefused(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		``, `null`, `[]`, `{}`, `x`, `{"organization":"acme"}`, `{"organization":"acme","entitlement":"e1"}`, `{"organization":"acme","hour":"2026-11-27T04"}`,
		`{"organization":"acme","entitlement":"e1","hour":"2026-11-27T04:00"}`, `{"organization":"acme","entitlement":"e1","hour":"2026-11-27T24"}`,
		`{"organization":"acme","entitlement":"e1","hour":"2026-11-27T04","lane":"l"}`, `{"organization":"","lane":"l"}`,
		`{"organization":"acme","lane":"l","lane":"l"}`, `{"organization":"acme","Lane":"l"}`, `{"organization":"acme","lane":"l","more":1}`,
		`{"organization":"acme","lane":"l"} `, `{"organization":"acme","lane":"l"}{}`, `{"lane":"l","organization":"acme"}`,
		`{"organization":"a/b","lane":"l"}`, `{"organization":"acme","entitlement":"a/b","hour":"2026-11-27T04"}`, `{"organization":1,"lane":"l"}`,
		`{"organization":"acme","lane":null}`,
	} {
		if got, err := reporting.DecodeHint(body); err == nil {
			t.Errorf("%s is read as %v", body, got)
		}
	}
}

// FuzzHint looks for a body that is read, and is not what the program sends for what was read.
func FuzzHint(f *testing.F) {
	f.Add(`{"organization":"acme","entitlement":"e1","hour":"2026-11-27T04"}`)
	f.Add(`{"organization":"acme","lane":"0123abc"}`)
	f.Add(`{"organization":"\ufffe","lane":"\u2028"}`)
	f.Fuzz(func(t *testing.T, body string) {
		h, err := reporting.DecodeHint(body)
		if err != nil {
			return
		}
		var members map[string]string
		if err := json.Unmarshal([]byte(body), &members); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"organization": string(h.Place.Organization)}
		if h.Lane != "" {
			want["lane"] = h.Lane
		} else {
			want["entitlement"], want["hour"] = string(h.Place.Entitlement), h.Place.Hour.Format("2006-01-02T15")
		}
		for name, value := range want {
			if members[name] != value || !utf8.ValidString(value) || value == "" {
				t.Errorf("%s of %q is read as %q", name, body, value)
			}
		}
		if len(members) != len(want) || reporting.EncodeHint(h) != body {
			t.Errorf("%q is read as %v", body, h)
		}
	})
}

// sqs is a server that takes messages as SQS does, and keeps their bodies by queue. It refuses
// those for the queue named by broken.
func sqs(t *testing.T, broken string) (queue func(name string) *awscall.Queue, bodies func(name string) []string) {
	var mu sync.Mutex
	taken := map[string][]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct {
			QueueURL string `json:"QueueUrl"`
			Entries  []struct{ ID, MessageBody string }
		}
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil || r.Header.Get("X-Amz-Target") != "AmazonSQS.SendMessageBatch" {
			t.Errorf("%v, %s", err, r.Header.Get("X-Amz-Target"))
		}
		if name := path.Base(call.QueueURL); name == broken {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		var response struct{ Successful []map[string]string }
		for _, e := range call.Entries {
			taken[path.Base(call.QueueURL)] = append(taken[path.Base(call.QueueURL)], e.MessageBody)
			response.Successful = append(response.Successful, map[string]string{"Id": e.ID})
		}
		if err := json.NewEncoder(w).Encode(response); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	client := &awscall.Client{Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", ""), HTTP: exchange.NewClient(nil, 0), Now: time.Now}
	queue = func(name string) *awscall.Queue {
		return &awscall.Queue{Client: client, URL: server.URL + "/123456789012/" + name, Region: "us-east-1"}
	}
	return queue, func(name string) []string {
		mu.Lock()
		defer mu.Unlock()
		return taken[name]
	}
}

func TestQueues_EachHintGoesToItsQueueOnce(t *testing.T) {
	t.Parallel()
	for _, broken := range []string{"", "plan", "submit"} {
		queue, bodies := sqs(t, broken)
		hints := []reporting.Hint{planHint("acme", "e1"), submitHint("acme", "l"), planHint("acme", "e2"), planHint("acme", "e1"), submitHint("acme", "l")}
		err := (reporting.Queues{Plan: queue("plan"), Submit: queue("submit")}).Enqueue(t.Context(), hints...)
		if (err != nil) != (broken != "") {
			t.Errorf("with %q broken: %v", broken, err)
		}
		want := map[string][]string{
			"plan":   {reporting.EncodeHint(hints[0]), reporting.EncodeHint(hints[2])},
			"submit": {reporting.EncodeHint(hints[1])},
		}
		delete(want, broken)
		for _, name := range []string{"plan", "submit"} {
			if got := bodies(name); !slices.Equal(got, want[name]) {
				t.Errorf("with %q broken, %s got %q, want %q", broken, name, got, want[name])
			}
		}
	}
	if err := (reporting.Queues{}).Enqueue(t.Context()); err != nil {
		t.Error(err)
	}
}
