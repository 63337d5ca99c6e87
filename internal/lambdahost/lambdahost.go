// Package lambdahost runs operations of the API as a Lambda function behind API Gateway (HTTP API,
// payload 2.0). It alone knows aws-lambda-go and the api-proxy adapter, and guards what that adapter
// (v0.16.2) gets wrong.
package lambdahost

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"

	"github.com/marketmeter/marketmeter/internal/apijson"
	"github.com/marketmeter/marketmeter/internal/httpapi"
)

// Run serves operations that need no table until Lambda ends the process, each request as whom the
// authorizer has told. Those that need it are run by tablehost.
func Run(operations ...httpapi.Operation) {
	Serve(&httpapi.API{CountUnits: noUnits}, Log(), operations...)
}

// Serve is Run of operations that may need what the API has.
func Serve(api *httpapi.API, log *slog.Logger, operations ...httpapi.Operation) {
	api.Log, api.Now, api.Identify = log, time.Now, Identity
	lambda.Start(Handler(api.Handler(operations...), log))
}

func noUnits(ctx context.Context) (context.Context, func() (read, write float64)) {
	return ctx, func() (read, write float64) { return 0, 0 }
}

// Log is the log that Lambda keeps.
func Log() *slog.Logger { return newLog(os.Stdout, os.Getenv("METRICS_NAMESPACE")) }

// newLog writes lines of JSON; with a namespace those of requests are metrics too.
func newLog(to io.Writer, namespace string) *slog.Logger {
	var handler slog.Handler = slog.NewJSONHandler(to, nil)
	if namespace != "" {
		handler = metricsHandler{handler, namespace}
	}
	return slog.New(handler)
}

// Handler makes handler a Lambda handler of payload-2.0 events. Whatever the event holds, it returns
// an answer and no error: an invocation error would reach the client as API Gateway's bare 500.
func Handler(handler http.Handler, log *slog.Logger) func(context.Context, events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	var begun atomic.Bool
	return func(ctx context.Context, event events.APIGatewayV2HTTPRequest) (response events.APIGatewayV2HTTPResponse, _ error) {
		requestID := event.RequestContext.RequestID
		ctx = httpapi.WithInvocation(ctx, httpapi.Invocation{
			RequestID: requestID, TraceID: traceOf(ctx).root, ColdStart: !begun.Swap(true),
		})
		internalError := failure(http.StatusInternalServerError, "internal error: the log has more under request id "+requestID)
		defer func() {
			if cause := recover(); cause != nil {
				log.Error("panic", "requestId", requestID, "error", fmt.Sprint(cause), "stack", string(debug.Stack()))
				response = internalError
			}
		}()
		if err := asSent(&event); err != nil {
			log.Info("event refused", "requestId", requestID, "status", http.StatusBadRequest, "error", err.Error())
			return failure(http.StatusBadRequest, err.Error()), nil
		}
		ctx, cancel := withTimeToAnswer(ctx)
		defer cancel()
		reached := false
		adapter := httpadapter.NewV2(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reached = true
			handler.ServeHTTP(w, r)
		}))
		response, err := adapter.ProxyWithContext(ctx, event)
		switch {
		case err == nil:
			return response, nil
		// The adapter would have either a 504 and an invocation error.
		case reached:
			log.Error("no answer", "requestId", requestID, "error", err.Error())
			return internalError, nil
		default:
			log.Info("event refused", "requestId", requestID, "status", http.StatusBadRequest, "error", err.Error())
			return failure(http.StatusBadRequest, "the request can't be read: its path and query must be percent-encoded"), nil
		}
	}
}

// answerMargin is what a request leaves of the function's time to answer that it ran out.
const answerMargin = 500 * time.Millisecond

func withTimeToAnswer(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-answerMargin))
}

// asSent makes the event what the adapter takes it for.
func asSent(event *events.APIGatewayV2HTTPRequest) error {
	// API Gateway delivers rawPath decoded, and the adapter parses it as if it were encoded: the id
	// a#b would be cut to a, and 50% would fail.
	event.RawPath = (&url.URL{Path: event.RawPath}).EscapedPath()
	if event.IsBase64Encoded {
		body, err := base64.StdEncoding.DecodeString(event.Body)
		if err != nil {
			return fmt.Errorf("the body is not base64, as isBase64Encoded says: %w", err)
		}
		event.Body, event.IsBase64Encoded = string(body), false
	}
	return nil
}

func failure(status int, message string) events.APIGatewayV2HTTPResponse {
	return events.APIGatewayV2HTTPResponse{
		StatusCode: status,
		Headers:    map[string]string{"Content-Type": "application/json; charset=utf-8"},
		Body:       string(apijson.AppendText(nil, message)),
	}
}
