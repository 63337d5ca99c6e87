package lambdahost

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// trace is how AWS X-Ray identifies an invocation.
type trace struct {
	root, parent string
	sampled      bool
}

// traceOf returns the trace of the invocation. aws-lambda-go passes it as
// "Root=1-...;Parent=...;Sampled=1".
func traceOf(ctx context.Context) (t trace) {
	header, _ := ctx.Value("x-amzn-trace-id").(string)
	for part := range strings.SplitSeq(header, ";") {
		switch name, value, _ := strings.Cut(part, "="); name {
		case "Root":
			t.root = value
		case "Parent":
			t.parent = value
		case "Sampled":
			t.sampled = value == "1"
		}
	}
	return t
}

// tracedTransport reports each attempt of a request to DynamoDB to Lambda's X-Ray daemon, as a
// subsegment of the invocation. So a trace shows how long each response took to begin, how many
// attempts were made, and the responses. A report is a UDP datagram; a lost one is not noticed.
type tracedTransport struct {
	next   http.RoundTripper
	daemon net.Conn
}

// Traced returns a transport that reports the requests that next sends to the X-Ray daemon at that
// address. It returns next if daemon is empty or can't be dialed.
func Traced(next http.RoundTripper, daemon string, log *slog.Logger) http.RoundTripper {
	if daemon == "" {
		return next
	}
	conn, err := net.Dial("udp", daemon)
	if err != nil {
		log.Warn("requests to DynamoDB are not traced", "daemon", daemon, "error", err.Error())
		return next
	}
	return tracedTransport{next, conn}
}

// segment is a document of X-Ray: times are seconds since 1970.
type segment struct {
	ID        string  `json:"id"`
	TraceID   string  `json:"trace_id"`
	ParentID  string  `json:"parent_id"`
	Type      string  `json:"type"`
	Name      string  `json:"name"`
	Namespace string  `json:"namespace"`
	StartTime float64 `json:"start_time"`
	EndTime   float64 `json:"end_time"`
	AWS       struct {
		Operation string `json:"operation"`
		RequestID string `json:"request_id,omitempty"`
	} `json:"aws"`
	HTTP struct {
		Response struct {
			Status int `json:"status,omitempty"`
		} `json:"response"`
	} `json:"http"`
	Error bool `json:"error,omitempty"` // 4xx, including a failed condition
	Fault bool `json:"fault,omitempty"` // 5xx, or no response
}

func (t tracedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	of := traceOf(request.Context())
	if !of.sampled {
		return t.next.RoundTrip(request)
	}
	start := time.Now()
	response, err := t.next.RoundTrip(request)
	s := segment{
		ID: newSegmentID(), TraceID: of.root, ParentID: of.parent, Type: "subsegment", Name: "DynamoDB", Namespace: "aws",
		StartTime: seconds(start), EndTime: seconds(time.Now()), Fault: err != nil,
	}
	_, s.AWS.Operation, _ = strings.Cut(request.Header.Get("X-Amz-Target"), ".")
	if err == nil {
		s.AWS.RequestID = response.Header.Get("X-Amzn-Requestid")
		s.HTTP.Response.Status = response.StatusCode
		s.Error = response.StatusCode >= 400 && response.StatusCode < 500
		s.Fault = response.StatusCode >= 500
	}
	t.send(&s)
	return response, err
}

func (t tracedTransport) send(s *segment) {
	document, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings, numbers and booleans can always be encoded
	}
	_, _ = t.daemon.Write(append([]byte(`{"format":"json","version":1}`+"\n"), document...))
}

func newSegmentID() string {
	var id [8]byte
	rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

func seconds(at time.Time) float64 { return float64(at.UnixMicro()) / 1e6 }
