package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/bench/conventional"
	"github.com/marketmeter/marketmeter/internal/bench/figure"
	"github.com/marketmeter/marketmeter/internal/bench/lambda"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// listHandler is the API's list operation as the function has it, over the transport. The client is
// the organization that the path names.
func listHandler(name string, transport http.RoundTripper) http.Handler {
	api := &httpapi.API{
		Table: table.New(tabletest.NewClient(transport), name), Log: slog.New(slog.NewJSONHandler(io.Discard, nil)),
		Now: time.Now, CountUnits: table.CountUnits, Authenticate: anyone,
	}
	return api.Handler("list")
}

// anyone admits every client.
func anyone(r *http.Request) (auth.Principal, error) {
	return auth.Principal{Organization: metering.OrgID(r.PathValue("orgId")), KeyID: "bench", Scopes: auth.Admin}, nil
}

// conventionalHandler is the conventional list operation, over the transport.
func conventionalHandler(name string, transport http.RoundTripper) http.Handler {
	return conventional.Handler(dynamodb.New(dynamodb.Options{
		Region: localdb.Region, BaseEndpoint: aws.String(os.Getenv("DYNAMODB_ENDPOINT")),
		Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(localdb.AccessKeyID, localdb.SecretAccessKey, "")),
		HTTPClient:  &http.Client{Transport: transport},
	}), name)
}

// window is the days of all groups here, as parameters; the conventional list has no defaults.
func window() string {
	today := metering.DayOf(time.Now())
	return fmt.Sprintf("startDate=%s&endDate=%s", today.AddDays(-metering.DefaultWindowDays), today)
}

func listRequest(org string, offset, limit int) *http.Request {
	return httptest.NewRequest(http.MethodGet, fmt.Sprintf("/org/%s/usageRecordGroup?%s&offset=%d&limit=%d", org, window(), offset, limit), nil)
}

// page is what a client reads of a response.
type page struct {
	NextOffset        int              `json:"nextOffset"`
	UsageRecordGroups []map[string]any `json:"usageRecordGroups"`
}

func readPage(tb testing.TB, body []byte) (p page) {
	tb.Helper()
	if err := json.Unmarshal(body, &p); err != nil {
		tb.Fatalf("%v: %.200s", err, body)
	}
	return p
}

// answer serves the request and returns the body of the response, which must be 200.
func answer(tb testing.TB, handler http.Handler, request *http.Request) []byte {
	tb.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	if recorder.Code != http.StatusOK {
		tb.Fatalf("%s: %d %s", request.URL, recorder.Code, recorder.Body)
	}
	return recorder.Body.Bytes()
}

// BenchmarkList measures the processor time of the list operation, from request to response, on
// 1,000 groups, beside that of the conventional operation and the min that any reader of DynamoDB's
// response needs. DynamoDB's responses are recorded. The groups are a whole organization, which
// takes one call of the SDK, or a page that others follow, which takes a second call, to store the
// next page's checkpoint.
func BenchmarkList(b *testing.B) {
	store := newStore(b)
	for _, c := range []struct {
		name   string
		groups int
	}{{"", thousand}, {"-with-successor", 2 * thousand}} {
		org := store.organization(b, c.groups)
		ourAnswers, theirAnswers := newRecording(), newRecording()
		ours, theirs := listHandler(store.name, ourAnswers), conventionalHandler(store.name, theirAnswers)
		ourBody, theirBody := answer(b, ours, listRequest(org, 0, thousand)), answer(b, theirs, listRequest(org, 0, thousand))
		if diff := cmp.Diff(readPage(b, theirBody), readPage(b, ourBody)); diff != "" {
			b.Fatalf("the answers differ (-conventional +ours):\n%s", diff)
		}
		if n := len(readPage(b, ourBody).UsageRecordGroups); n != thousand {
			b.Fatalf("%d groups", n)
		}
		stored := ourAnswers.bodies("Query")[0]
		b.Logf("1,000 groups: %d bytes in the API's JSON, %d in DynamoDB's for ours, %d for the conventional",
			len(ourBody), len(stored), len(theirAnswers.bodies("Query")[0]))

		serve := func(handler http.Handler, answers *recording) func() {
			request := listRequest(org, 0, thousand)
			return func() {
				answers.rewind()
				w := discarding{http.Header{}}
				handler.ServeHTTP(w, request.Clone(b.Context()))
			}
		}
		const us, them, scan = 0, 1, 2
		m := figure.InTurns(figure.Rounds(b, 31),
			cpuOf(10, serve(ours, ourAnswers)),
			cpuOf(2, serve(theirs, theirAnswers)),
			cpuOf(20, func() { scanned = bareScan(stored) }),
		)
		b.Logf("CPU, medians: ours %.2f ms, conventional %.2f ms, bare scan %.2f ms", m.Median(us), m.Median(them), m.Median(scan))
		figure.Print("list-cpu-vs-conventional"+c.name, m.Ratio(them, us), "times", ">= 10")
		figure.Print("list-cpu-vs-scan"+c.name, m.Ratio(us, scan), "times", "<= 1.6")
		figure.Print("list-allocs"+c.name, testing.AllocsPerRun(10, serve(ours, ourAnswers)), "allocations", "<= 500")
		b.Logf("allocations of the conventional: %.0f", testing.AllocsPerRun(2, serve(theirs, theirAnswers)))
	}
}

// discarding accepts a response and stores nothing of it.
type discarding struct{ header http.Header }

func (w discarding) Header() http.Header         { return w.header }
func (w discarding) Write(b []byte) (int, error) { return len(b), nil }
func (w discarding) WriteHeader(status int) {
	if status != http.StatusOK {
		panic(fmt.Sprintf("status %d", status))
	}
}

// cpuOf is the processor time of one run of work, in milliseconds: of the whole process, including
// the collection of the work's own garbage, without that of earlier garbage.
func cpuOf(runs int, work func()) func() float64 {
	return func() float64 {
		runtime.GC()
		before := cpuTime()
		for range runs {
			work()
		}
		return float64((cpuTime() - before).Nanoseconds()) / 1e6 / float64(runs)
	}
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// scanned prevents the compiler from removing the scan.
var scanned int

// bareScan is the min that a reader of JSON must do: look at each byte once, to find the end of
// each string and its depth. It checks nothing and stores nothing. It returns the number of strings
// plus the max depth.
func bareScan(text []byte) (sum int) {
	depth, deepest := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			sum++
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		}
	}
	return sum + deepest
}

// BenchmarkInvoke measures an invocation of the list function, from the event to the complete
// response of 1,000 groups, and of the conventional function. Both are separate programs and call a
// server with DynamoDB's recorded responses. It also measures the cost and the gain of compressing
// that response.
func BenchmarkInvoke(b *testing.B) {
	store := newStore(b)
	org := store.organization(b, 2*thousand)
	event := listEvent(b, org, fmt.Sprintf("%s&offset=0&limit=%d", window(), thousand), nil)
	gzipped := listEvent(b, org, fmt.Sprintf("%s&offset=0&limit=%d", window(), thousand), map[string]string{"accept-encoding": "gzip"})
	type side struct {
		process *lambda.Process
		answers *recording
	}
	begin := func(program string) side {
		answers := newRecording()
		server := httptest.NewServer(serverOf(answers, os.Getenv("DYNAMODB_ENDPOINT")))
		b.Cleanup(server.Close)
		return side{lambda.Start(b, program, server.URL, "TABLE_NAME="+store.name), answers}
	}
	us, them := begin(buildHere(b, ours+"list")), begin(buildHere(b, measured+"conventional"))
	invoke := func(s side, event []byte) func() float64 {
		return func() float64 {
			s.answers.rewind()
			_, took := s.process.Invoke(b, event)
			return milliseconds(took)
		}
	}
	body := func(s side) page {
		answer, _ := s.process.Invoke(b, event)
		var envelope struct {
			StatusCode int
			Body       string
		}
		if err := json.Unmarshal(answer, &envelope); err != nil || envelope.StatusCode != http.StatusOK {
			b.Fatalf("%v: %.300s", err, answer)
		}
		return readPage(b, []byte(envelope.Body))
	}
	if diff := cmp.Diff(body(them), body(us)); diff != "" {
		b.Fatalf("the answers differ (-conventional +ours):\n%s", diff)
	}
	m := figure.InTurns(figure.Rounds(b, 101), invoke(us, event), invoke(them, event), invoke(us, gzipped))
	b.Logf("medians: ours %.2f ms, conventional %.2f ms, ours compressed %.2f ms", m.Median(0), m.Median(1), m.Median(2))
	figure.Print("invoke-vs-conventional", m.Ratio(1, 0), "times", ">= 5")

	plain, _ := us.process.Invoke(b, event)
	compressed, _ := us.process.Invoke(b, gzipped)
	if !bytes.Contains(compressed, []byte(`"isBase64Encoded":true`)) {
		b.Fatalf("not compressed: %.300s", compressed)
	}
	figure.Print("compress-time", m.Ratio(2, 0), "times", "<= 2")
	figure.Print("compress-saving", float64(len(plain))/float64(len(compressed)), "times", ">= 3")
}

// BenchmarkEvents measures a warm invocation for each event in events/, with DynamoDB's responses
// recorded, and of a function that does nothing.
func BenchmarkEvents(b *testing.B) {
	store := newStore(b)
	hello := lambda.Start(b, buildHere(b, measured+"hello"), "")
	for _, operation := range httpapi.Operations() {
		name := operation.ID
		event, err := os.ReadFile("../../events/" + name + ".json")
		if err != nil {
			b.Fatal(err)
		}
		answers := newRecording()
		server := httptest.NewServer(serverOf(answers, os.Getenv("DYNAMODB_ENDPOINT")))
		defer server.Close()
		p := lambda.Start(b, buildHere(b, ours+operation.Function), server.URL, "TABLE_NAME="+store.name)
		m := figure.InTurns(figure.Rounds(b, 301),
			func() float64 {
				answers.rewind()
				_, took := p.Invoke(b, event)
				return milliseconds(took)
			},
			func() float64 {
				_, took := hello.Invoke(b, event)
				return milliseconds(took)
			},
		)
		b.Logf("medians: %s %.2f ms, hello %.2f ms", name, m.Median(0), m.Median(1))
		figure.Print("invoke-vs-hello-"+name, m.Ratio(0, 1), "times", "none")
	}
}

// listEvent is events/listUsageRecordGroups.json for another organization and query, with
// additional headers.
func listEvent(tb testing.TB, org, query string, headers map[string]string) []byte {
	tb.Helper()
	text, err := os.ReadFile("../../events/listUsageRecordGroups.json")
	if err != nil {
		tb.Fatal(err)
	}
	var event map[string]any
	if err := json.Unmarshal(bytes.ReplaceAll(text, []byte("demo"), []byte(org)), &event); err != nil {
		tb.Fatal(err)
	}
	event["rawQueryString"] = query
	delete(event, "queryStringParameters") // nothing reads them
	for name, value := range headers {
		event["headers"].(map[string]any)[name] = value
	}
	text, err = json.Marshal(event)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}
