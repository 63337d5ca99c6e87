package workerhost_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/metering"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// wire stands before the sandbox and moto's server. It records the secrets that pass, and can
// respond in their place by repeating the request.
type wire struct {
	mu      sync.Mutex
	secrets map[string]bool
	repeats map[string]repeat // by call
	hits    map[string]int    // how often, by call
}

// repeat is a response that repeats a request: its headers, and its body as it is and decoded.
type repeat struct {
	status int
	body   func(said string, request []byte) string
}

// said begins what a repeat says of a request.
const said = "You sent "

func newWire() *wire { return &wire{secrets: map[string]bool{}} }

// before returns the URL of a server before the one at the URL to.
func (w *wire) before(t *testing.T, to string) string {
	t.Helper()
	inside, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&httputil.ReverseProxy{Transport: w, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(inside)
		r.Out.Host = r.In.Host // it is signed
	}})
	t.Cleanup(server.Close)
	return server.URL
}

// issued finds the secrets in a response of the sandbox or of STS.
var issued = regexp.MustCompile(`"(?:access_token|accessToken)":"([^"]+)"|<(?:SessionToken|SecretAccessKey)>([^<]+)<`)

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil { // as a GET has none
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	form, _ := url.ParseQuery(string(body))
	secrets := []string{r.Header.Get("X-Amz-Security-Token"), form.Get("client_secret"), form.Get("assertion")}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		secrets = append(secrets, token)
	}
	w.learn(secrets...)

	call := callOf(r, form)
	w.mu.Lock()
	repeat, armed := w.repeats[call]
	if armed {
		w.hits[call]++
	}
	w.mu.Unlock()
	if armed {
		var text strings.Builder
		text.WriteString(said)
		for name, values := range r.Header {
			fmt.Fprintf(&text, "%s: %s\n", name, strings.Join(values, " "))
		}
		text.Write(body)
		for _, values := range form {
			text.WriteString("\n" + values[0])
		}
		response := httptest.NewRecorder()
		response.Header().Set("Content-Type", "application/json") // without it, a token endpoint's error is not read
		response.WriteHeader(repeat.status)
		_, _ = response.WriteString(repeat.body(text.String(), body))
		return response.Result(), nil
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(text))
	for _, found := range issued.FindAllStringSubmatch(string(text), -1) {
		w.learn(found[1] + found[2])
	}
	return response, err
}

// callOf names a request: by its target or action, or by the marketplace and the end of the path.
func callOf(r *http.Request, form url.Values) string {
	if _, operation, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		return operation
	}
	if action := form.Get("Action"); action != "" {
		return action
	}
	path := strings.FieldsFunc(r.URL.Path, func(c rune) bool { return c == '/' || c == ':' })
	return path[0] + " " + path[len(path)-1]
}

func (w *wire) learn(secrets ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, secret := range secrets {
		if secret != "" {
			w.secrets[secret] = true
		}
	}
}

// arm makes the calls fail from now on by repeating what they send, and no others.
func (w *wire) arm(repeats map[string]repeat) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.repeats, w.hits = repeats, map[string]int{}
}

// missed returns the calls that are armed and were not made.
func (w *wire) missed() (calls []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for call := range w.repeats {
		if w.hits[call] == 0 {
			calls = append(calls, call)
		}
	}
	return calls
}

// daemon receives datagrams as the X-Ray daemon does, and returns its address.
func daemon(t *testing.T, into io.Writer) string {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for datagram := make([]byte, 64<<10); ; {
			n, _, err := conn.ReadFrom(datagram)
			if err != nil {
				return // it is closed
			}
			fmt.Fprintf(into, "%s\n", datagram[:n])
		}
	}()
	t.Cleanup(func() { conn.Close(); <-ended })
	return conn.LocalAddr().String()
}

// items returns every attribute of every item of the table.
func (s *stack) items() string {
	s.t.Helper()
	items, err := tabletest.Items(s.t.Context(), s.client, s.name)
	if err != nil {
		s.t.Fatal(err)
	}
	var all strings.Builder
	for _, item := range items {
		writeValue(s.t, &all, &types.AttributeValueMemberM{Value: item})
	}
	return all.String()
}

func writeValue(t *testing.T, to io.Writer, value types.AttributeValue) {
	t.Helper()
	switch value := value.(type) {
	case *types.AttributeValueMemberS:
		fmt.Fprintln(to, value.Value)
	case *types.AttributeValueMemberN:
		fmt.Fprintln(to, value.Value)
	case *types.AttributeValueMemberB:
		fmt.Fprintf(to, "%s\n", value.Value)
	case *types.AttributeValueMemberBOOL:
		fmt.Fprintln(to, value.Value)
	case *types.AttributeValueMemberSS:
		fmt.Fprintln(to, value.Value)
	case *types.AttributeValueMemberL:
		for _, element := range value.Value {
			writeValue(t, to, element)
		}
	case *types.AttributeValueMemberM:
		for name, member := range value.Value {
			fmt.Fprintf(to, "%s: ", name)
			writeValue(t, to, member)
		}
	default:
		t.Fatalf("an attribute of type %T can't be searched", value)
	}
}

// wantNoSecret searches all that was written for each secret that was planted, sent or issued: the
// table, the log, the traces, what the functions return, the messages of the queues that they got,
// and those of the dead-letter queues.
func (s *stack) wantNoSecret() {
	t := s.t
	t.Helper()
	for function := range s.queues {
		s.letters(function)
	}
	s.wire.mu.Lock()
	secrets := slices.Sorted(maps.Keys(s.wire.secrets))
	s.wire.mu.Unlock()
	if len(secrets) < 4 { // the session and the key of the role, the client secret, a token
		t.Errorf("%d secrets were seen", len(secrets))
	}
	secrets = append(secrets, ownSecret, ownSession, rt.ClientSecret)
	for line := range strings.SplitSeq(rt.Key(rt.Robot), `\n`) {
		if len(line) == 64 { // a whole line of the PEM
			secrets = append(secrets, line)
		}
	}
	for name, text := range map[string]string{
		"the table": s.items(), "the log": s.log.String(), "the traces": s.traces.String(), "what is returned and enqueued": s.output.String(),
	} {
		if text == "" && inContainers == "" {
			t.Errorf("nothing was written to %s", name)
		}
		for _, secret := range secrets {
			for _, form := range []string{
				secret, url.QueryEscape(secret), strings.ReplaceAll(secret, "/", `\/`), base64.StdEncoding.EncodeToString([]byte(secret)),
			} {
				if at := strings.Index(text, form); at >= 0 {
					t.Errorf("%s has the secret %s: ...%s", name, secret, text[max(0, at-300):at+len(form)])
					break
				}
			}
		}
	}
}

// The forms of responses to which the functions give a meaning, with the request repeated in them.
var (
	plain     = func(said string, _ []byte) string { return said }
	exception = func(name string) func(string, []byte) string {
		return func(said string, _ []byte) string { return encode(map[string]any{"__type": name, "message": said}) }
	}
	stsError = func(said string, _ []byte) string {
		var text bytes.Buffer
		_ = xml.EscapeText(&text, []byte(said))
		return "<ErrorResponse><Error><Code>AccessDenied</Code><Message>" + text.String() + "</Message></Error></ErrorResponse>"
	}
	oauth = func(said string, _ []byte) string {
		return encode(map[string]any{"error": "invalid_client", "error_description": said})
	}
	azureError = func(said string, _ []byte) string {
		return encode(map[string]any{"code": "Forbidden", "message": said, "target": said})
	}
	googleError = func(name string) func(string, []byte) string {
		return func(said string, _ []byte) string {
			return encode(map[string]any{"error": map[string]any{"status": name, "message": said}})
		}
	}
	// Each record of the request, in a response with status 200.
	awsResults = func(status string) func(string, []byte) string {
		return func(said string, request []byte) string {
			var results []any
			for _, record := range listIn(request, "UsageRecords") {
				results = append(results, map[string]any{"UsageRecord": record, "Status": status, "MeteringRecordId": said, "Message": said})
			}
			return encode(map[string]any{"Results": results})
		}
	}
	azureResults = func(status string) func(string, []byte) string {
		return func(said string, request []byte) string {
			results := listIn(request, "request")
			for _, r := range results {
				r["status"], r["error"] = status, map[string]any{"code": status, "message": said}
			}
			return encode(map[string]any{"result": results})
		}
	}
	googleErrors = func(code int) func(string, []byte) string {
		return func(said string, request []byte) string {
			var results []any
			for _, o := range listIn(request, "operations") {
				results = append(results, map[string]any{"operationId": o["operationId"], "status": map[string]any{"code": code, "message": said}})
			}
			return encode(map[string]any{"reportErrors": results})
		}
	}
)

func encode(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings, numbers and what was decoded
	}
	return string(text)
}

// listIn returns the objects of a list in a request.
func listIn(request []byte, name string) (list []map[string]any) {
	var all map[string]json.RawMessage
	_ = json.Unmarshal(request, &all)
	_ = json.Unmarshal(all[name], &list)
	return list
}

// Whatever STS, Secrets Manager, a token endpoint or a marketplace responds, even if it repeats all
// that it was sent, the functions write no secret. The functions are of this process: it advances
// their clock.
func TestWorkers_WriteNothingSecret(t *testing.T) {
	t.Parallel()
	s := newStack(t, "")
	send := func() (groups []metering.GroupID) {
		for e, partner := range partners {
			hour, _ := s.closedHour(partner)
			groups = append(groups, s.report(e, hour, "2"))
		}
		return groups
	}
	groups := send()
	for i, repeats := range []map[string]repeat{
		{"AssumeRole": {403, stsError}, "GetSecretValue": {400, exception("AccessDeniedException")}},
		{"BatchMeterUsage": {400, exception("UnrecognizedClientException")}, "azure token": {401, oauth}, "gcp token": {400, oauth}},
		{"BatchMeterUsage": {403, exception("AccessDeniedException")}, "azure batchUsageEvent": {401, azureError}, "gcp check": {403, googleError("PERMISSION_DENIED")}},
		{"BatchMeterUsage": {500, plain}, "azure batchUsageEvent": {403, azureError}, "gcp report": {403, googleError("PERMISSION_DENIED")}},
		{"BatchMeterUsage": {200, awsResults(said)}, "azure batchUsageEvent": {500, plain}, "gcp report": {500, plain}},
		{"BatchMeterUsage": {200, plain}, "azure batchUsageEvent": {200, azureResults("Error")}, "gcp report": {200, googleErrors(14)}},
		nil,
	} {
		s.repeat(i, repeats)
	}
	for _, id := range groups {
		if got := s.status(id); got != metering.StatusReported {
			t.Errorf("a group is %s", got)
		}
	}
	if got := s.box.Billed(); got != "d0=2 d0=2 d0=2" {
		t.Errorf("billed: %s", got)
	}
	// What is refused for good, and a receipt.
	s.advance(time.Hour)
	refused := send()
	s.repeat(-1, map[string]repeat{"BatchMeterUsage": {200, awsResults("Success")}, "azure batchUsageEvent": {200, azureResults("BadArgument")}, "gcp report": {200, googleErrors(3)}})
	for _, id := range refused {
		if got := s.status(id); got != metering.StatusReported && got != metering.StatusReportFailed {
			t.Errorf("a group is %s", got)
		}
	}
	queue := awscall.Queue{Client: s.moto, URL: s.queues["plan"], Region: region}
	if err := queue.Send(t.Context(), []string{"a dead letter"}, 0); err != nil {
		t.Fatal(err)
	}
	for range receives + 1 {
		s.poll("plan")
	}
	for name, text := range map[string]string{"the table": s.items(), "the log": s.log.String()} {
		if !strings.Contains(text, said) || !strings.Contains(text, "(redacted)") {
			t.Errorf("%s has no response that repeats a request", name)
		}
	}
	if letters := s.letters("plan"); len(letters) != 1 {
		t.Errorf("dead letters: %q", letters)
	}
	s.wantNoSecret()
}

// repeat works until each of the calls was made and its request repeated, or once if none is armed.
func (s *stack) repeat(round int, repeats map[string]repeat) {
	s.t.Helper()
	s.wire.arm(repeats)
	for attempt := 0; attempt == 0 || len(s.wire.missed()) > 0; attempt++ {
		if attempt == 8 {
			s.t.Fatalf("round %d: no call of %q: %s", round, s.wire.missed(), s.log)
		}
		s.schedule()
		s.work()
		s.advance(10 * time.Minute)
	}
}
