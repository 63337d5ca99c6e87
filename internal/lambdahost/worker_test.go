package lambdahost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/table"
)

// job is a function over nothing, whose log has metrics.
func job(to io.Writer) *Job {
	return &Job{Name: "plan", Log: newLog(to, "marketmeter/test"), CountUnits: table.CountUnits}
}

// sqsEvent is what an event source mapping sends for messages of those bodies: m0, m1 and so on.
func sqsEvent(t testing.TB, bodies ...string) []byte {
	t.Helper()
	records := []map[string]any{}
	for i, body := range bodies {
		records = append(records, map[string]any{
			"messageId": fmt.Sprintf("m%d", i), "receiptHandle": "r", "body": body, "messageAttributes": map[string]any{}, "md5OfBody": "e4e6",
			"attributes": map[string]any{
				"ApproximateReceiveCount": "1", "SentTimestamp": "1545082649183", "SenderId": "AIDAIENQZJOLO23YVJ4VO", "ApproximateFirstReceiveTimestamp": "1545082649185",
			},
			"eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:us-east-2:123456789012:my-queue", "awsRegion": "us-east-2",
		})
	}
	text, err := json.Marshal(map[string]any{"Records": records})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// failures invokes the function and returns the messages that it reports as failed, in order.
func failures(ctx context.Context, t testing.TB, j *Job, work func(context.Context, reporting.Hint) error, event []byte) []string {
	t.Helper()
	answer, err := lambda.NewHandler(j.Messages(work)).Invoke(ctx, event)
	if err != nil {
		t.Fatal(err)
	}
	var response struct {
		BatchItemFailures []struct{ ItemIdentifier string }
	}
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&response); err != nil || !bytes.Contains(answer, []byte(`"batchItemFailures":[`)) {
		t.Fatalf("%s: %v", answer, err)
	}
	ids := []string{}
	for _, f := range response.BatchItemFailures {
		ids = append(ids, f.ItemIdentifier)
	}
	slices.Sort(ids)
	return ids
}

// linesOf are the lines of a log, by their message.
func linesOf(t testing.TB, log *bytes.Buffer) map[string][]map[string]any {
	t.Helper()
	all := map[string][]map[string]any{}
	for line := range strings.Lines(log.String()) {
		members := map[string]any{}
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all[members["msg"].(string)] = append(all[members["msg"].(string)], members)
	}
	return all
}

func planOf(entitlement string) string {
	return `{"organization":"acme","entitlement":"` + entitlement + `","hour":"2026-11-27T04"}`
}

func TestMessages_OnlyThoseThatFailAreDeliveredAgain(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var mu sync.Mutex
	worked := map[string]int{}
	work := func(_ context.Context, h reporting.Hint) error {
		mu.Lock()
		worked[reporting.EncodeHint(h)]++
		mu.Unlock()
		switch h.Place.Entitlement {
		case "fails":
			return errors.New("storage is out of reach")
		case "panics":
			panic("a bug")
		}
		return nil
	}
	const lane, planted = `{"organization":"acme","lane":"0123"}`, "planted-secret"
	got := failures(t.Context(), t, job(&log), work, sqsEvent(t,
		planOf("good"), planOf("fails"), planted, planOf("panics"), lane, planOf("good"), planOf("fails"), `{"organization":"acme"}`))
	if want := []string{"m1", "m2", "m3", "m6", "m7"}; !slices.Equal(got, want) {
		t.Errorf("failed: %q, want %q", got, want)
	}
	for _, body := range []string{planOf("good"), planOf("fails"), planOf("panics"), lane} {
		if worked[body] != 1 {
			t.Errorf("%s was worked on %d times", body, worked[body])
		}
	}
	lines := linesOf(t, &log)
	if len(lines[WorkLogged]) != 4 || len(lines[reporting.EventLogged]) != 4 {
		t.Errorf("%d lines of work, %d of events: %s", len(lines[WorkLogged]), len(lines[reporting.EventLogged]), &log)
	}
	counts := map[string]int{}
	for _, line := range lines[reporting.EventLogged] {
		counts[line["event"].(string)]++
		wantMetrics(t, line, "[[]]", line["event"].(string))
		if line["operation"] != "plan" || line["level"] != "ERROR" {
			t.Errorf("%v", line)
		}
	}
	if counts["failed"] != 2 || counts["unreadableHints"] != 2 {
		t.Errorf("events: %v", counts)
	}
	for i, line := range lines[WorkLogged] {
		wantMetrics(t, line, "[[operation] []]", "readUnits", "writeUnits", "durationMs")
		if hint, ok := line["hint"].(map[string]any); !ok || hint["organization"] != "acme" || line["level"] != "INFO" {
			t.Errorf("line %d: %v", i, line)
		}
	}
	for _, part := range []string{"storage is out of reach", "panic: a bug", "worker_test.go", `"coldStart":true`} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log has no %q: %s", part, &log)
		}
	}
	if strings.Contains(log.String(), planted) {
		t.Errorf("the log quotes a body that is not ours: %s", &log)
	}
}

// wantMetrics wants a line to have these metrics, by the embedded metric format.
func wantMetrics(t testing.TB, line map[string]any, dimensions string, names ...string) {
	t.Helper()
	encoded, err := json.Marshal(line["_aws"])
	if err != nil {
		t.Fatal(err)
	}
	var meta struct {
		CloudWatchMetrics []struct {
			Namespace  string
			Dimensions [][]string
			Metrics    []struct{ Name, Unit string }
		}
	}
	if err := json.Unmarshal(encoded, &meta); err != nil || len(meta.CloudWatchMetrics) != 1 {
		t.Fatalf("%v: %s", err, encoded)
	}
	of, got := meta.CloudWatchMetrics[0], []string{}
	for _, m := range of.Metrics {
		got = append(got, m.Name)
		if _, ok := line[m.Name].(float64); !ok || m.Unit == "" {
			t.Errorf("metric %s, in %q, is %v", m.Name, m.Unit, line[m.Name])
		}
	}
	if of.Namespace != "marketmeter/test" || fmt.Sprint(of.Dimensions) != dimensions || !slices.Equal(got, names) {
		t.Errorf("%s, want %s and %q", encoded, dimensions, names)
	}
}

// All gauges of a line of an event are metrics, and nothing else of it.
func TestLog_GaugesAreMetrics(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	reporting.Count(t.Context(), newLog(&log, "marketmeter/test").With("operation", "schedule"), reporting.EventScheduled, 1,
		"places", 3, "lanes", 2, "oldestSeconds", 0, "deadlineSeconds", 3600, "partner", "AWS")
	wantMetrics(t, linesOf(t, &log)[reporting.EventLogged][0], "[[]]", "scheduled", "places", "lanes", "oldestSeconds", "deadlineSeconds")
}

// Work ends before Lambda ends the function, and all of it has ended when the function returns.
func TestMessages_EndBeforeTheFunction(t *testing.T) {
	t.Parallel()
	deadline := time.Now().Add(answerMargin + 50*time.Millisecond)
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	defer cancel()
	var running atomic.Int32
	got := failures(ctx, t, job(io.Discard), func(ctx context.Context, h reporting.Hint) error {
		running.Add(1)
		defer running.Add(-1)
		if at, ok := ctx.Deadline(); !ok || !at.Equal(deadline.Add(-answerMargin)) {
			t.Errorf("the work ends at %v, the function at %v", at, deadline)
		}
		if h.Place.Entitlement == "quick" {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}, sqsEvent(t, planOf("a"), planOf("quick"), planOf("b")))
	if n := running.Load(); n != 0 {
		t.Errorf("%d still run", n)
	}
	if want := []string{"m0", "m2"}; !slices.Equal(got, want) {
		t.Errorf("failed: %q, want %q", got, want)
	}
}

// The function of a queue that is called by something else fails, and so Lambda counts an error.
func TestMessages_OtherEventsAreErrors(t *testing.T) {
	t.Parallel()
	handler := lambda.NewHandler(job(io.Discard).Messages(func(context.Context, reporting.Hint) error {
		t.Error("there is no work")
		return nil
	}))
	for _, event := range []string{
		`{}`, `[]`, `x`, `{"Records":[]}`, `{"Records":[{"eventSource":"aws:kinesis","kinesis":{"data":"e30="}}]}`,
		`{"Records":[{"messageId":"m0","body":"` + strings.ReplaceAll(planOf("e"), `"`, `\"`) + `"},{"body":"x"}]}`, `{"version":"2.0","rawPath":"/"}`,
	} {
		if answer, err := handler.Invoke(t.Context(), []byte(event)); err == nil {
			t.Errorf("%s: %s", event, answer)
		}
	}
}

func TestScheduled_FailuresAreErrors(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	j := job(&log)
	for _, c := range []struct {
		what, told string
		work       func(context.Context) error
	}{
		{"good", "", func(ctx context.Context) error {
			_, bounded := ctx.Deadline()
			if !bounded {
				t.Error("the work has no deadline")
			}
			return nil
		}},
		{"fails", "out of reach", func(context.Context) error { return errors.New("out of reach") }},
		{"panics", "panic: a bug", func(context.Context) error { panic("a bug") }},
	} {
		log.Reset()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := lambda.NewHandler(j.Scheduled(c.work)).Invoke(ctx, []byte(`{"source":"aws.events","detail":{}}`))
		cancel()
		lines := linesOf(t, &log)
		if (err == nil) != (c.told == "") || len(lines[WorkLogged]) != 1 || err == nil != (len(lines[reporting.EventLogged]) == 0) {
			t.Errorf("%s: %v, %s", c.what, err, &log)
		}
		if err != nil && lines[reporting.EventLogged][0]["error"] != c.told {
			t.Errorf("%s: %v", c.what, lines[reporting.EventLogged])
		}
	}
}
