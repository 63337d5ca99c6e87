package bench

import (
	"bytes"
	"encoding/json"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
	"github.com/marketmeter/marketmeter/internal/bench/lambda"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

// BenchmarkStart measures how long each function takes from the start of its process until it
// requests its first event, beside a function that does nothing: in turns, each time in a new
// process. A function calls DynamoDB before that; the call gets its response at once, over HTTP
// without TLS. The time until that call arrives is reported, too: a function without a call would
// request its event then.
func BenchmarkStart(b *testing.B) {
	calls := make(chan time.Time, 1)
	kept := newRecording()
	answers := serverOf(kept, os.Getenv("DYNAMODB_ENDPOINT"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls <- time.Now()
		answers.ServeHTTP(w, r)
	}))
	defer server.Close()
	sides := []string{measured + "hello"}
	for _, function := range functions {
		sides = append(sides, ours+function)
	}
	for _, program := range sides { // the first start reads the program from the disk
		lambda.Start(b, buildHere(b, program), server.URL).Stop()
		select {
		case <-calls:
		default:
		}
	}
	ready, called := make(figure.Measurements, len(sides)), make(figure.Measurements, len(sides))
	for round := range figure.Rounds(b, 101) {
		for i := range sides {
			side := (round + i) % len(sides)
			kept.rewind()
			p := lambda.Start(b, buildHere(b, sides[side]), server.URL)
			p.Stop()
			ready[side] = append(ready[side], milliseconds(p.Ready))
			select {
			case at := <-calls:
				called[side] = append(called[side], milliseconds(at.Sub(p.Begun)))
			default: // it makes no call
				called[side] = append(called[side], milliseconds(p.Ready))
			}
		}
	}
	list, report := 1+slices.Index(functions, "list"), 1+slices.Index(functions, "report")
	figure.Print("init-report-vs-list", ready.Ratio(report, list), "times", "<= 1 within noise")
	for i, function := range functions {
		side := 1 + i
		b.Logf("medians: %s %.2f ms, its call after %.2f ms; hello %.2f ms", function, ready.Median(side), called.Median(side), ready.Median(0))
		figure.Print("init-vs-hello-"+function, ready.Ratio(side, 0), "times", "<= 1.6")
		if called.Median(side) != ready.Median(side) {
			figure.Print("init-vs-hello-"+function+"-until-call", called.Ratio(side, 0), "times", "<= 1.6")
		}
	}
}

// BenchmarkFirstResponse measures the time from the start of each function's process to the end of
// its first response, beside that of a conventional function. Both call a server with DynamoDB's
// recorded responses. For a list, the conventional function does the same as ours. For any other
// operation it makes the calls that the operation needs, one after the other, and computes nothing.
func BenchmarkFirstResponse(b *testing.B) {
	client, name := tabletest.Client(b)
	stored := table.New(client, name)
	if err := transfer.LoadSample(b.Context(), stored, transfer.SampleOptions{Now: time.Now(), Say: func(string) {}}); err != nil {
		b.Fatal(err)
	}
	putEntitlement(b, stored, "demo", "ent-8f3a61c2", 4)
	for _, function := range functions {
		event := eventNamed(b, firstEvent(function))
		theirs := event
		switch function {
		case "list": // the conventional list has no defaults
			event = listEvent(b, "demo", window()+"&offset=0", nil)
			theirs = event
		case "validate": // its event names no entitlement
			event = bytes.ReplaceAll(eventNamed(b, "batchCreateUsageRecordGroups"), []byte("batchCreate"), []byte("batchValidate"))
			event = bytes.Replace(event, []byte(`"rawQueryString": ""`), []byte(`"rawQueryString": "explain=true"`), 1)
			theirs = event
		case "authorizer": // its event is of a list
			theirs = eventNamed(b, "getUsageRecordGroup")
		}
		status := map[string]int{}
		first := func(program string, event []byte) func() float64 {
			answers := newRecording()
			server := httptest.NewServer(serverOf(answers, os.Getenv("DYNAMODB_ENDPOINT")))
			b.Cleanup(server.Close)
			start := func() float64 {
				answers.rewind()
				p := lambda.Start(b, buildHere(b, program), server.URL, "TABLE_NAME="+name)
				defer p.Stop()
				sent := time.Now()
				answer, took := p.Invoke(b, event)
				var envelope struct{ StatusCode int }
				if err := json.Unmarshal(answer, &envelope); err != nil || envelope.StatusCode >= http.StatusInternalServerError {
					b.Fatalf("%s: %v: %.300s", program, err, answer)
				}
				status[program] = envelope.StatusCode
				return milliseconds(sent.Sub(p.Begun) + took)
			}
			start() // reads the program from the disk and records the responses
			return start
		}
		m := figure.InTurns(figure.Rounds(b, 31), first(ours+function, event), first(measured+"conventional", theirs))
		b.Logf("medians: %s %.2f ms, conventional %.2f ms; status %v", function, m.Median(0), m.Median(1), status)
		figure.Print("first-response-"+function, m.Ratio(0, 1), "times", "<= 0.8")
	}
}

func eventNamed(tb testing.TB, name string) []byte {
	tb.Helper()
	event, err := os.ReadFile("../../events/" + name + ".json")
	if err != nil {
		tb.Fatal(err)
	}
	return event
}

// firstEvent names an event of the function.
func firstEvent(function string) string {
	for _, operation := range httpapi.Operations() {
		if operation.Function == function {
			return operation.ID
		}
	}
	return function // the authorizer, which has no operation
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

// At its start, a function makes one call to DynamoDB.
func TestStart_MakesOneCall(t *testing.T) {
	t.Parallel()
	for _, function := range []string{"list", "authorizer", "validate"} {
		var calls atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			if target := r.Header.Get("X-Amz-Target"); target != "DynamoDB_20120810.GetItem" {
				t.Errorf("%s calls %s", function, target)
			}
			w.Header().Set("X-Amz-Crc32", strconv.Itoa(int(crc32.ChecksumIEEE([]byte("{}")))))
			_, _ = w.Write([]byte("{}"))
		}))
		lambda.Start(t, buildHere(t, ours+function), server.URL).Stop()
		server.Close()
		if calls.Load() != 1 {
			t.Errorf("%s makes %d calls", function, calls.Load())
		}
	}
}

// Without DynamoDB a function starts, too, and reports for each request that it has no table.
func TestStart_WithoutDynamoDB(t *testing.T) {
	t.Parallel()
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	p := lambda.Start(t, buildHere(t, ours+"list"), nobody.URL)
	answer, _ := p.Invoke(t, listEvent(t, "org", "limit=1", nil))
	if !bytes.Contains(answer, []byte(`"statusCode":503`)) {
		t.Errorf("%s", answer)
	}
	if log := p.Said(t); !strings.Contains(log, "the table was not reached at the start") {
		t.Errorf("the log: %s", log)
	}
	if p.Ready > 3*time.Second {
		t.Errorf("it took %v", p.Ready)
	}
}

// A function starts even if DynamoDB refuses its call: the connection exists.
func TestStart_IfItsCallIsRefused(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"no"}`))
	}))
	defer server.Close()
	lambda.Start(t, buildHere(t, ours+"list"), server.URL)
	if calls.Load() != 1 {
		t.Errorf("%d calls", calls.Load())
	}
}

// BenchmarkSize measures the size of the functions as `sam build` builds them for the processor on
// which they are deployed.
func BenchmarkSize(b *testing.B) {
	for _, function := range functions {
		program, err := os.Stat(build(b, ours+function, "arm64"))
		if err != nil {
			b.Fatal(err)
		}
		figure.Print("binary-"+function, float64(program.Size())/1e6, "MB", "<= 9")
	}
}
