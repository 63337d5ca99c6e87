// Package lambdahost runs operations of the API as a Lambda function behind API Gateway (HTTP API,
// payload 2.0), and the workers that report usage as functions that SQS or a schedule calls. It
// alone imports aws-lambda-go and the api-proxy adapter. It uses the adapter's half that reads
// requests, and corrects what that half (v0.16.2) gets wrong.
package lambdahost

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/awslabs/aws-lambda-go-api-proxy/core"

	"github.com/marketmeter/marketmeter/internal/build"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// Serve serves the operations of a function, which handler makes of the API, until Lambda ends the
// process. The caller of each request is the principal that the authorizer has identified.
// tablehost.Run serves by the table.
func Serve(api *httpapi.API, log *slog.Logger, handler func(*httpapi.API) http.Handler) {
	api.Log, api.Now, api.Authenticate = log, Now, Principal
	lambda.Start(Handler(handler(api), log))
}

// Now is the clock of all functions: the time of the wall alone. Lambda freezes a process between
// two invocations, and the monotonic clock, which Go prefers, stands still then. What is held for a
// minute, such as a token, a secret or a check, would be held for hours.
func Now() time.Time { return time.Now().Round(0) }

// Log returns the log that Lambda stores.
func Log() *slog.Logger { return newLog(os.Stdout, os.Getenv("METRICS_NAMESPACE")) }

// newLog returns a log of JSON lines that name the build. With a namespace, the lines of requests,
// work and events are also metrics.
func newLog(to io.Writer, namespace string) *slog.Logger {
	var handler slog.Handler = slog.NewJSONHandler(to, nil)
	if namespace != "" {
		handler = metricsHandler{handler, namespace}
	}
	return slog.New(handler).With(build.Current().LogAttributes()...)
}

// Handler makes handler a Lambda function of payload-2.0 events. Whatever the event holds, it
// returns a response and no error: an invocation error would reach the client as API Gateway's bare
// 500.
func Handler(handler http.Handler, log *slog.Logger) lambda.Handler {
	return &function{handler: handler, log: log}
}

type function struct {
	handler http.Handler
	log     *slog.Logger
	begun   atomic.Bool
}

// Invoke is called by Lambda with the bytes of an event.
func (f *function) Invoke(ctx context.Context, payload []byte) (answer []byte, _ error) {
	var event events.APIGatewayV2HTTPRequest
	notAnEvent := json.Unmarshal(payload, &event)
	requestID := event.RequestContext.RequestID
	if called, ok := lambdacontext.FromContext(ctx); ok && requestID == "" {
		requestID = called.AwsRequestID
	}
	ctx = httpapi.WithInvocation(ctx, httpapi.Invocation{
		RequestID: requestID, TraceID: traceOf(ctx).root, ColdStart: !f.begun.Swap(true), PathParameters: pathParameters(&event),
	})
	internalError := failure(http.StatusInternalServerError, "internal error: the log has more under request id "+requestID)
	defer func() {
		if cause := recover(); cause != nil {
			f.log.Error("panic", "requestId", requestID, "error", fmt.Sprint(cause), "stack", string(debug.Stack()))
			answer = internalError
		}
	}()
	if notAnEvent != nil {
		// No client can cause this, only a wrong event source. Lambda counts no error, so this line
		// counts one, for the alarm.
		f.log.Error(httpapi.RequestLogged, "requestId", requestID, "operation", "none", "status", http.StatusInternalServerError,
			"durationMs", 0, "readUnits", 0, "writeUnits", 0, "internalErrors", 1, "error", "the event is not one of an HTTP API: "+notAnEvent.Error())
		return internalError, nil
	}
	refused := func(status int, reason error, message string) []byte {
		f.log.Info("event refused", "requestId", requestID, "status", status, "error", reason.Error())
		return failure(status, message)
	}
	if status, err := checkUTF8(payload, &event); err != nil {
		return refused(status, err, err.Error()), nil
	}
	if err := asSent(&event); err != nil {
		return refused(http.StatusBadRequest, err, err.Error()), nil
	}
	ctx, cancel := withTimeToAnswer(ctx)
	defer cancel()
	request, err := new(core.RequestAccessorV2).EventToRequestWithContext(ctx, event)
	if err != nil {
		return refused(http.StatusBadRequest, err, "the request can't be read: its path and query must be percent-encoded"), nil
	}
	w := newEnvelope()
	f.handler.ServeHTTP(w, request)
	if answer = w.end(); answer == nil {
		f.log.Error("no answer", "requestId", requestID)
		return internalError, nil
	}
	return answer, nil
}

// answerMargin is the part of the function's time that is reserved to respond that the time ran
// out. That takes milliseconds, but at a seventh of a core. Lambda ends a function that is late:
// the client would get a bare 503 of API Gateway and the alarm an error.
const answerMargin = time.Second

func withTimeToAnswer(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-answerMargin))
}

// pathParameters returns what API Gateway read from the path. It reads none only for a route
// without parameters, such as $default.
func pathParameters(event *events.APIGatewayV2HTTPRequest) map[string]string {
	if event.PathParameters == nil && strings.Contains(event.RouteKey, "{") {
		return map[string]string{}
	}
	return event.PathParameters
}

// asSent changes the event to the form that the adapter expects.
func asSent(event *events.APIGatewayV2HTTPRequest) error {
	// API Gateway delivers rawPath decoded, and the adapter parses it as if it were encoded: the id
	// a#b would be cut to a, and 50% would fail. Without a rawPath it would parse another member.
	event.RawPath = (&url.URL{Path: cmp.Or(event.RawPath, "/")}).EscapedPath()
	// An HTTP server reads "#" as part of the query; the adapter reads it as the start of a
	// fragment and drops the rest.
	event.RawQueryString = strings.ReplaceAll(event.RawQueryString, "#", "%23")
	if event.IsBase64Encoded {
		body, err := base64.StdEncoding.DecodeString(event.Body)
		if err != nil {
			return fmt.Errorf("the body is not base64, as isBase64Encoded says: %w", err)
		}
		event.Body, event.IsBase64Encoded = string(body), false
	}
	return nil
}

func failure(status int, message string) []byte {
	w := newEnvelope()
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(wire.AppendText(nil, message))
	return w.end()
}
