// The workers as they are deployed: the functions, called by the schedule and by the messages of
// two queues, with DynamoDB Local, the sandbox, and moto's server for SQS, STS and Secrets
// Manager.
//
// `make test` calls the functions in this process. `make e2e` has them in containers and runs the
// same tests with these variables, which scripts/e2e-workers sets:
//
//	MARKETMETER_E2E_LAMBDA   the URL of `sam local start-lambda`
//	MARKETMETER_E2E_HOST     the address at which containers reach this machine
//	SANDBOX_URL              what the functions have of the sandbox, at a port of that address
//	AWS_SERVICES_ENDPOINT    and of moto's server
//	TABLE_NAME               the table that they have
package workerhost_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/lambdahost/connecthost"
	"github.com/marketmeter/marketmeter/internal/lambdahost/workerhost"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

const (
	region     = "us-east-1"
	ownSecret  = "planted-own-secret"
	ownSession = "planted-own-session"
	receives   = 5 // maxReceiveCount in template.yaml
	visibility = 720
)

// inContainers is the URL of sam local start-lambda; empty if the functions are in this process.
var inContainers = os.Getenv("MARKETMETER_E2E_LAMBDA")

// stack is what a stack has, with all that it calls.
type stack struct {
	t      *testing.T
	org    metering.OrgID
	table  *table.Table
	client *dynamodb.Client // of the table, and its name
	name   string
	box    *rt.Box
	moto   *awscall.Client
	aws    string            // moto's URL here
	queues map[string]string // the URLs of the queues here, by function
	dead   map[string]string // and of their dead letters
	wire   *wire             // between the functions, and the sandbox and moto
	log    *lines
	traces *lines           // what the X-Ray daemon gets from functions in this process
	output *lines           // what the functions return, and the messages that they get
	ahead  *atomic.Int64    // how many nanoseconds the clock is ahead of the real one
	now    func() time.Time // the clock of all but moto
	invoke func(ctx context.Context, function string, event []byte) ([]byte, error)
}

func TestWorkers(t *testing.T) {
	shared := ""
	if inContainers != "" { // processes that know one table, for as long as they live
		shared = os.Getenv("TABLE_NAME")
		tabletest.ClientOf(t, shared)
	}
	for name, test := range map[string]func(*stack){
		"ReportUsage": reportUsage, "MessagesFailAlone": messagesFailAlone, "PausedDoNothing": pausedDoNothing, "Reconcile": reconcile,
	} {
		t.Run(name, func(t *testing.T) {
			if shared == "" {
				t.Parallel()
			}
			test(newStack(t, shared))
		})
	}
}

// newStack returns a stack with an entitlement at each marketplace, and its connections. It has a
// table of its own unless shared names one, and an organization of its own in any case.
func newStack(t *testing.T, shared string) *stack {
	t.Helper()
	s := &stack{
		t: t, org: metering.OrgID("acme-" + strings.ToLower(t.Name()[len("TestWorkers/"):])), name: shared, box: rt.Start(t, sandbox.Options{}), aws: programtest.Moto(t),
		queues: map[string]string{}, dead: map[string]string{}, wire: newWire(), log: &lines{}, traces: &lines{}, output: &lines{}, ahead: &atomic.Int64{},
	}
	s.now = func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }
	if s.name == "" {
		_, s.name = tabletest.Client(t)
	}
	s.client = tabletest.NewClient(lambdahost.Traced(http.DefaultTransport, daemon(t, s.traces), slog.New(slog.DiscardHandler)))
	s.table = table.New(s.client, s.name)
	if inContainers == "" { // those have the real time
		s.advance(time.Until(midMonth(time.Now())))
	} else {
		s.advance(0)
	}
	own := credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", ownSecret, ownSession)
	s.moto = &awscall.Client{Credentials: own, HTTP: exchange.NewClient(nil, time.Minute), Now: s.now}
	for _, function := range []string{"plan", "submit"} {
		s.dead[function] = s.createQueue(function+"-dead", map[string]string{})
		s.queues[function] = s.createQueue(function, map[string]string{
			"VisibilityTimeout": strconv.Itoa(visibility),
			"RedrivePolicy":     fmt.Sprintf(`{"deadLetterTargetArn":"arn:aws:sqs:%s:123456789012:%s-dead","maxReceiveCount":"%d"}`, region, function, receives),
		})
	}
	sandboxURL, aws := s.wire.before(t, s.box.URL), s.wire.before(t, s.aws)
	if inContainers == "" {
		s.invoke = s.inProcess(own, sandboxURL, aws)
	} else {
		expose(t, os.Getenv("AWS_SERVICES_ENDPOINT"), aws)
		expose(t, os.Getenv("SANDBOX_URL"), sandboxURL)
		sandboxURL = os.Getenv("SANDBOX_URL")
		s.invoke = s.overSAM
	}
	s.sell(sandboxURL)
	return s
}

// advance advances the clock of the functions in this process, and of the sandbox.
func (s *stack) advance(by time.Duration) {
	s.t.Helper()
	s.ahead.Add(int64(by))
	now, frozen := s.now(), false
	if _, err := s.box.SetClock(sandbox.ClockChange{Time: &now, Frozen: &frozen}); err != nil {
		s.t.Fatal(err)
	}
}

// expose serves what is at the URL to on this machine to containers, which reach it at the URL at.
func expose(t *testing.T, at, to string) {
	t.Helper()
	outside, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	inside, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort(os.Getenv("MARKETMETER_E2E_HOST"), outside.Port()))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(inside)
		r.Out.Host = r.In.Host // it is signed
	}})
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
}

// sell stores entitlements and connections, whose secrets are in Secrets Manager.
func (s *stack) sell(sandboxURL string) {
	s.t.Helper()
	for _, e := range worldtest.Entitlements() {
		change, err := metering.NewEntitlementChange(s.org, e.ID, &e, metering.Conditions{}, s.now())
		if err == nil {
			_, _, err = s.table.PutEntitlement(s.t.Context(), &change)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	for _, c := range []metering.Connection{
		{Partner: "AWS", RoleARN: "arn:aws:iam::111122223333:role/marketmeter"},
		{Partner: "AZURE", TenantID: rt.Tenant, ClientID: rt.Application, SecretARN: s.secret("azure", rt.ClientSecret)},
		{Partner: "GCP", SecretARN: s.secret("google", rt.Key(rt.Robot))},
	} {
		c.Endpoint = sandboxURL
		change, err := metering.NewConnectionChange(c.Partner, &c, metering.ConnectionRules{Organization: s.org, SandboxURL: sandboxURL}, metering.Conditions{})
		if err == nil {
			_, _, err = s.table.PutConnection(s.t.Context(), s.org, &change)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// call makes a call to moto's server.
func (s *stack) call(service, version, target string, in, out any) {
	s.t.Helper()
	err := s.moto.JSON(s.t.Context(), awscall.Call{
		URL: s.aws, Service: service, Region: region, ContentType: "application/x-amz-json-" + version, Target: target,
	}, in, out)
	if err != nil {
		s.t.Fatalf("%s: %v", target, err)
	}
}

func (s *stack) sqs(operation string, in, out any) {
	s.t.Helper()
	s.call("sqs", "1.0", "AmazonSQS."+operation, in, out)
}

func (s *stack) secret(name, value string) (arn string) {
	s.t.Helper()
	var out struct{ ARN string }
	s.call("secretsmanager", "1.1", "secretsmanager.CreateSecret", map[string]string{"Name": "marketmeter/" + string(s.org) + "/" + name, "SecretString": value}, &out)
	return out.ARN
}

func (s *stack) createQueue(name string, attributes map[string]string) string {
	s.t.Helper()
	var out struct {
		QueueURL string `json:"QueueUrl"`
	}
	s.sqs("CreateQueue", map[string]any{"QueueName": name, "Attributes": attributes}, &out)
	return out.QueueURL
}

// inProcess returns the functions of this process, whose environment is that of template.yaml.
func (s *stack) inProcess(own credentials.StaticCredentialsProvider, sandboxURL, aws string) func(context.Context, string, []byte) ([]byte, error) {
	variables := map[string]string{
		"AWS_REGION": region, "AWS_SERVICES_ENDPOINT": aws, "SANDBOX_URL": sandboxURL,
		"PLAN_QUEUE_URL": s.queues["plan"], "SUBMIT_QUEUE_URL": s.queues["submit"],
	}
	log := slog.New(slog.NewJSONHandler(s.log, nil))
	e := workerhost.Environment{
		Table: s.table, Credentials: own, Transport: http.DefaultTransport.(*http.Transport).Clone(), Getenv: func(name string) string { return variables[name] },
		Now: s.now,
	}
	sending := e
	sending.Marketplaces = connecthost.Connector(e)
	functions := map[string]lambda.Handler{
		"schedule":  workerhost.Schedule(log, e),
		"reconcile": workerhost.Reconcile(log, sending),
		"plan":      workerhost.Messages("plan", log, e, (*reporting.Worker).PlanHint),
		"submit":    workerhost.Messages("submit", log, sending, (*reporting.Worker).SubmitHint),
	}
	return func(ctx context.Context, function string, event []byte) ([]byte, error) {
		ctx = context.WithValue(ctx, "x-amzn-trace-id", "Root=1-0-0;Parent=0;Sampled=1") //nolint:revive,staticcheck // aws-lambda-go's key
		return functions[function].Invoke(ctx, event)
	}
}

// overSAM calls a function in its container.
func (s *stack) overSAM(ctx context.Context, function string, event []byte) ([]byte, error) {
	name := strings.ToUpper(function[:1]) + function[1:] + "Function"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, inContainers+"/2015-03-31/functions/"+name+"/invocations", bytes.NewReader(event))
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("X-Amz-Function-Error") != "" || bytes.Contains(body, []byte(`"errorMessage"`)) {
		return nil, fmt.Errorf("status %d: %s", response.StatusCode, body)
	}
	return body, nil
}

// schedule calls what EventBridge calls every 5 minutes.
func (s *stack) schedule() { s.scheduled("schedule") }

// scheduled calls a function as EventBridge does.
func (s *stack) scheduled(function string) {
	s.t.Helper()
	out, err := s.invoke(s.t.Context(), function, []byte(`{"version":"0","detail-type":"Scheduled Event","source":"aws.events","resources":[],"detail":{}}`))
	fmt.Fprintln(s.output, string(out), err)
	if err != nil {
		s.t.Fatal(err)
	}
}

type message struct {
	MessageID     string `json:"MessageId"`
	ReceiptHandle string
	MD5OfBody     string
	Body          string
	Attributes    map[string]string
}

// poll does what the event source mapping of a function does with one batch: it receives up to ten
// messages, calls the function with them, and deletes those that are not reported as failed, or
// none if the function fails or reports what it can't have got. Those that remain become visible
// at once, as if the visibility timeout were over. It returns the bodies of all, and of those that
// remain.
func (s *stack) poll(function string) (received, failed []string) {
	s.t.Helper()
	queue := s.queues[function]
	var out struct{ Messages []message }
	s.sqs("ReceiveMessage", map[string]any{"QueueUrl": queue, "MaxNumberOfMessages": 10, "AttributeNames": []string{"All"}}, &out)
	if len(out.Messages) == 0 {
		return nil, nil
	}
	event := events.SQSEvent{}
	for _, m := range out.Messages {
		event.Records = append(event.Records, events.SQSMessage{
			MessageId: m.MessageID, ReceiptHandle: m.ReceiptHandle, Body: m.Body, Md5OfBody: m.MD5OfBody, Attributes: m.Attributes,
			EventSource: "aws:sqs", EventSourceARN: "arn:aws:sqs:" + region + ":123456789012:" + function, AWSRegion: region,
		})
	}
	payload, err := json.Marshal(event)
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.invoke(s.t.Context(), function, payload)
	fmt.Fprintln(s.output, string(payload), string(answer), err)
	remain := s.remaining(out.Messages, answer, err)
	for _, m := range out.Messages {
		received = append(received, m.Body)
		var none struct{}
		if slices.Contains(remain, m.MessageID) {
			failed = append(failed, m.Body)
			s.sqs("ChangeMessageVisibilityBatch", map[string]any{
				"QueueUrl": queue, "Entries": []map[string]any{{"Id": "0", "ReceiptHandle": m.ReceiptHandle, "VisibilityTimeout": 0}},
			}, &none)
			continue
		}
		s.sqs("DeleteMessageBatch", map[string]any{"QueueUrl": queue, "Entries": []map[string]any{{"Id": "0", "ReceiptHandle": m.ReceiptHandle}}}, &none)
	}
	return received, failed
}

// remaining returns the ids of the messages that are not deleted after a response.
func (s *stack) remaining(batch []message, answer []byte, err error) (ids []string) {
	s.t.Helper()
	var all []string
	for _, m := range batch {
		all = append(all, m.MessageID)
	}
	if err != nil {
		s.t.Logf("the function failed: %v", err)
		return all
	}
	var response events.SQSEventResponse
	if err := json.Unmarshal(answer, &response); err != nil {
		s.t.Errorf("%v: %s", err, answer)
		return all
	}
	for _, f := range response.BatchItemFailures {
		if !slices.Contains(all, f.ItemIdentifier) {
			s.t.Errorf("%q failed, which is no message of the batch", f.ItemIdentifier)
			return all
		}
		ids = append(ids, f.ItemIdentifier)
	}
	return ids
}

// work polls both queues until they are empty. Nothing may fail.
func (s *stack) work() {
	s.t.Helper()
	for empty := 0; empty < 2; {
		empty = 0
		for _, function := range []string{"plan", "submit"} {
			received, failed := s.poll(function)
			if len(received) == 0 {
				empty++
			}
			if len(failed) > 0 {
				s.t.Fatalf("%s failed with %q: %s", function, failed, s.log)
			}
		}
	}
}

// letters are the bodies of the dead letters of a function.
func (s *stack) letters(function string) (bodies []string) {
	s.t.Helper()
	var out struct{ Messages []message }
	s.sqs("ReceiveMessage", map[string]any{"QueueUrl": s.dead[function], "MaxNumberOfMessages": 10, "VisibilityTimeout": 0}, &out)
	for _, m := range out.Messages {
		bodies = append(bodies, m.Body)
	}
	fmt.Fprintln(s.output, bodies)
	return bodies
}

// midMonth is the last noon of the 10th of a month. Near the end of a month, the hours that are
// closed are not those whose usage is taken.
func midMonth(now time.Time) time.Time {
	now = now.UTC()
	noon := time.Date(now.Year(), now.Month(), 10, 12, 0, 0, 0, time.UTC)
	if noon.After(now) {
		noon = noon.AddDate(0, -1, 0)
	}
	return noon
}

// closedHour returns the start of the last hour that is closed for usage of the marketplace, and
// whose window is not for another 10 minutes. Google has none from 50 to 70 minutes after the end
// of its month, and ok is false: the functions in this process never have that time.
func (s *stack) closedHour(partner metering.Partner) (hour time.Time, ok bool) {
	s.t.Helper()
	now, schedule := s.now(), reports.ScheduleOf(&metering.Entitlement{Partner: partner}, metering.Connection{})
	for hour := metering.HourOf(now); now.Sub(hour) < metering.UsageWindow; hour = hour.Add(-time.Hour) {
		if !now.Before(schedule.Closes(hour)) && now.Add(10*time.Minute).Before(schedule.Deadline(hour)) {
			return hour, true
		}
	}
	if partner != "GCP" || inContainers == "" {
		s.t.Fatalf("no hour of %s is closed at %v whose usage it would take", partner, now)
	}
	return time.Time{}, false
}

// report stores usage, and returns the id of its group.
func (s *stack) report(e metering.EntitlementID, at time.Time, quantity string) metering.GroupID {
	s.t.Helper()
	g := metering.NewGroup{EntitlementID: string(e), Timestamp: &at, Records: []metering.NewRecord{{Key: "d0", Quantity: quantity}}}
	groups, err := s.table.Report(s.t.Context(), s.org, &metering.Report{Groups: []metering.NewGroup{g}, Now: s.now()})
	if err != nil {
		s.t.Fatal(err)
	}
	return metering.GroupID(groups[0].ID)
}

func (s *stack) status(id metering.GroupID) metering.Status {
	s.t.Helper()
	g, err := s.table.Group(s.t.Context(), s.org, id)
	if err != nil {
		s.t.Fatal(err)
	}
	return g.Status
}

var partners = map[metering.EntitlementID]metering.Partner{worldtest.OnAWS: "AWS", worldtest.OnAzure: "AZURE", worldtest.OnGoogle: "GCP"}

// Usage at each marketplace gets from the table to the bill, by the schedule and both queues: with
// a role that is assumed and with secrets that are read. Nothing secret is written.
func reportUsage(s *stack) {
	t := s.t
	groups := map[metering.EntitlementID][]metering.GroupID{}
	status, billed := map[metering.EntitlementID]metering.Status{}, "d0=5 d0=5 d0=5"
	for e, partner := range partners {
		at, ok := s.closedHour(partner)
		at, status[e] = at.Add(time.Minute), metering.StatusReported
		if !ok { // usage of the hour that has begun waits
			at, status[e], billed = metering.HourOf(s.now()), metering.StatusCreated, "d0=5 d0=5"
		}
		for _, quantity := range []string{"2", "3"} {
			groups[e] = append(groups[e], s.report(e, at, quantity))
		}
	}
	s.schedule()
	s.work()
	for e, ids := range groups {
		for _, id := range ids {
			if got := s.status(id); got != status[e] {
				t.Errorf("a group of %s is %s, want %s: %s", e, got, status[e], s.log)
			}
		}
	}
	if got := s.box.Billed(); got != billed {
		t.Errorf("billed: %s", got)
	}
	// More hints find nothing to do.
	s.schedule()
	s.work()
	if got := s.box.Billed(); got != billed {
		t.Errorf("billed by more hints: %s", got)
	}
	for _, function := range []string{"plan", "submit"} {
		if letters := s.letters(function); len(letters) > 0 {
			t.Errorf("dead letters of %s: %q", function, letters)
		}
	}
	s.wantNoSecret()
}

// Of a batch, what can't be done fails alone, and is a dead letter in the end. The others are done
// once.
func messagesFailAlone(s *stack) {
	t := s.t
	hour, _ := s.closedHour("AWS")
	group := s.report(worldtest.OnAWS, hour, "7")
	good := reporting.EncodeHint(reporting.Hint{Place: reports.Place{Organization: s.org, Entitlement: worldtest.OnAWS, Hour: hour}})
	const junk, foreign = `{"hello":"world"}`, `{"organization":"acme","lane":"0123"}`
	send := func(function string, bodies ...string) {
		t.Helper()
		queue := awscall.Queue{Client: s.moto, URL: s.queues[function], Region: region}
		if err := queue.Send(t.Context(), bodies, 0); err != nil {
			t.Fatal(err)
		}
	}
	send("plan", good, junk, good, foreign)
	for n := range receives {
		received, failed := s.poll("plan")
		slices.Sort(failed)
		if want := []string{junk, foreign}; !slices.Equal(failed, want) {
			t.Fatalf("delivery %d of %q: failed %q, want %q: %s", n+1, received, failed, want, s.log)
		}
		if n == 0 && len(received) != 4 || n > 0 && len(received) != 2 {
			t.Errorf("delivery %d is of %q", n+1, received)
		}
	}
	if received, _ := s.poll("plan"); len(received) > 0 {
		t.Errorf("after %d deliveries plan gets %q", receives, received)
	}
	if letters := s.letters("plan"); len(letters) != 2 {
		t.Errorf("dead letters: %q", letters)
	}
	s.work()
	if got := s.status(group); got != metering.StatusReported {
		t.Errorf("the group is %s: %s", got, s.log)
	}
	if got := s.box.Billed(); got != "d0=7" {
		t.Errorf("billed: %s", got)
	}
}

// While reporting is paused, nothing is sent and nothing fails. Afterwards it continues.
func pausedDoNothing(s *stack) {
	t := s.t
	hour, _ := s.closedHour("AZURE")
	group := s.report(worldtest.OnAzure, hour, "4")
	s.schedule()
	if err := s.table.Pause(t.Context(), "somebody", s.now()); err != nil {
		t.Fatal(err)
	}
	s.work()
	if got, billed := s.status(group), s.box.Billed(); got != metering.StatusCreated || billed != "" {
		t.Errorf("paused, the group is %s, and billed: %q", got, billed)
	}
	if err := s.table.Resume(t.Context(), "somebody", s.now()); err != nil {
		t.Fatal(err)
	}
	s.schedule()
	s.work()
	if got, billed := s.status(group), s.box.Billed(); got != metering.StatusReported || billed != "d0=4" {
		t.Errorf("resumed, the group is %s, and billed: %q: %s", got, billed, s.log)
	}
}

// A day is compared with what Azure has of it. It is too young to be reconciled.
func reconcile(s *stack) {
	t := s.t
	hour, _ := s.closedHour("AZURE")
	group := s.report(worldtest.OnAzure, hour, "4")
	s.schedule()
	s.work()
	if got := s.status(group); got != metering.StatusReported {
		t.Errorf("the group is %s: %s", got, s.log)
	}
	s.scheduled("reconcile")
	calls := s.box.Calls("usageEvents") // in containers, of the other organizations too
	if len(calls) == 0 || calls[0].Response == nil || calls[0].Response.Status != http.StatusOK {
		t.Errorf("read back by %+v: %s", calls, s.log)
	}
	days := 0
	err := s.table.EachUnreconciled(t.Context(), func(d reports.Day) error {
		if d.Organization == s.org {
			days++
		}
		return nil
	})
	if err != nil || days != 1 {
		t.Errorf("%d days are left, %v", days, err)
	}
}

// lines is a log in memory.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
