// Package httpapi is the HTTP API: its operations, the strict reading of requests, the handlers,
// and the one place at which a failure becomes a status, a JSON string and a log line.
package httpapi

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// Table is what the API needs of the table; internal/table documents it.
type Table interface {
	List(ctx context.Context, org metering.OrgID, request metering.ListRequest, buffer []byte,
		encode func(groups []byte, page metering.GroupPage) error) (laterBy time.Duration, err error)
	Reports(ctx context.Context, org metering.OrgID, request metering.ListRequest, buffer []byte,
		encode func(reports []byte, page metering.GroupPage) error) (laterBy time.Duration, err error)
	DailyRecords(ctx context.Context, org metering.OrgID, partner metering.Partner, request metering.ListRequest, buffer []byte,
		encode func(records []byte, page metering.GroupPage) error) (laterBy time.Duration, err error)
	Report(ctx context.Context, org metering.OrgID, report *metering.Report) ([]metering.Group, error)
	Group(ctx context.Context, org metering.OrgID, id metering.GroupID) (metering.Group, error)
	Retry(ctx context.Context, org metering.OrgID, id metering.GroupID, retry metering.Retry) (metering.Group, error)
	Delete(ctx context.Context, org metering.OrgID, id metering.GroupID, created metering.Day, now time.Time) (metering.Group, error)
	TermsOf(ctx context.Context, org metering.OrgID, ids []metering.EntitlementID, billable bool) (metering.TermsByEntitlement, error)
	Config(ctx context.Context, org metering.OrgID) (metering.ConfigVersion, error)
	ChangeConfig(ctx context.Context, org metering.OrgID, now time.Time, change metering.ConfigChange) (after metering.ConfigVersion, written bool, err error)

	Entitlements(ctx context.Context, org metering.OrgID, filter metering.EntitlementFilter, offset, limit int) ([][]byte, error)
	Entitlement(ctx context.Context, org metering.OrgID, id metering.EntitlementID) (metering.Stored[metering.Entitlement], error)
	PutEntitlement(ctx context.Context, change *metering.EntitlementChange) (after metering.Stored[metering.Entitlement], written bool, err error)
	DeleteEntitlement(ctx context.Context, org metering.OrgID, id metering.EntitlementID, deletion metering.EntitlementDeletion) (after metering.Stored[metering.Entitlement], written bool, err error)

	Connections(ctx context.Context, org metering.OrgID) ([][]byte, error)
	Connection(ctx context.Context, org metering.OrgID, partner metering.Partner) (metering.Stored[metering.Connection], error)
	PutConnection(ctx context.Context, org metering.OrgID, change *metering.ConnectionChange) (after metering.Stored[metering.Connection], written bool, err error)
	DeleteConnection(ctx context.Context, org metering.OrgID, partner metering.Partner, conditions metering.Conditions) (metering.Stored[metering.Connection], error)

	MetricList(ctx context.Context, org metering.OrgID, status metering.MetricStatus) ([][]byte, error)
	Metric(ctx context.Context, org metering.OrgID, id metering.MetricID) (metering.Stored[metering.BillableMetric], error)
	AddMetric(ctx context.Context, m *metering.BillableMetric) ([]byte, error)
	ChangeMetric(ctx context.Context, org metering.OrgID, id metering.MetricID, now time.Time, patch metering.MetricPatch) (json []byte, written bool, err error)

	ConfigVersions(ctx context.Context, org metering.OrgID, offset, limit, size int) (page []metering.ConfigVersion, more bool, err error)
	ConfigVersion(ctx context.Context, org metering.OrgID, version int) (metering.ConfigVersion, error)
}

// API serves Operations.
type API struct {
	// Table may be nil if no served operation needs it.
	Table Table
	Log   *slog.Logger
	Now   func() time.Time

	// ListFor is how long one request reads a list. If it is zero, that is 10 seconds, a third of
	// API Gateway's timeout.
	ListFor time.Duration

	// Authenticate identifies the caller by data that the client can't forge. It returns
	// Unauthenticated if nothing identifies the caller. Without it every request is refused.
	Authenticate func(*http.Request) (auth.Principal, error)

	// CountUnits returns a context and a function that returns the DynamoDB units consumed under
	// it.
	CountUnits func(context.Context) (context.Context, func() (read, write float64))

	// NewMetricID makes the id of a new billable metric of the organization. If it is nil, ids are
	// random.
	NewMetricID func(metering.OrgID) metering.MetricID

	// SandboxURL is the only endpoint that a connection may have. If it is empty, as in a deployed
	// stack, a connection may have none.
	SandboxURL string

	// OwnRoleOrganizations may meter on AWS with the service's own role: their connection to AWS
	// needs no roleArn.
	OwnRoleOrganizations []string

	// Verify tries the credentials of a connection without metering. It returns Invalid with the
	// marketplace's own error if they can't be used, and Unavailable if that can't be found out
	// now. If it is nil, verify=true is refused.
	Verify func(ctx context.Context, org metering.OrgID, connection metering.Connection) error

	pages       sync.Pool // of *[]byte, for the bodies of lists and explanations
	compressors sync.Pool // of *gzip.Writer, of 900 KB
}

// Handler serves the operations of the named functions, or all of them if none is named. For any
// other path it responds with 404, and for any other method on one of its paths with 405. It logs
// one line per request and recovers from panics.
func (a *API) Handler(functions ...string) http.Handler { return a.HandlerOf(operationsOf(functions)) }

// HandlerOf is Handler for the operations.
func (a *API) HandlerOf(operations []Operation) http.Handler {
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, operation := range operations {
		methods[operation.Path] = append(methods[operation.Path], operation.Method)
		mux.HandleFunc(operation.Method+" "+operation.Path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != operation.Method { // ServeMux accepts HEAD for GET
				notAllowed(w, r, methods[operation.Path])
				return
			}
			x := exchangeOf(r)
			x.operation = operation.ID
			err := x.sameParameters(operation, r)
			if err == nil {
				err = a.authorize(operation, r)
			}
			if err == nil {
				err = operation.handle(a, w, r)
			}
			if err != nil {
				Refuse(w, r, func() { x.fail(w, err) })
			}
		})
	}
	for path, allowed := range methods {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { notAllowed(w, r, allowed) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { exchangeOf(r).fail(w, noSuchPath(r)) })
	return a.serve(mux)
}

// authorize accepts a request whose key belongs to the path's organization and has a scope that the
// operation requires. Code after it works on that organization alone.
func (a *API) authorize(operation Operation, r *http.Request) error {
	if a.Authenticate == nil {
		return metering.Errorf(metering.Unauthenticated, "nothing here tells who asks: no request is let in")
	}
	principal, err := a.Authenticate(r)
	if err != nil {
		return err
	}
	x := exchangeOf(r)
	x.keyID, x.organization = principal.KeyID, principal.Organization
	path := r.PathValue("orgId")
	if err := principal.Authorize(path, operation.Scopes, a.Now()); err != nil {
		return err
	}
	if _, err := metering.ParseOrgID(path); err != nil { // a key that an earlier version made
		return metering.Errorf(metering.NotFound, "there is no organization %s here: %v", metering.Quote(path), err)
	}
	return nil
}

// sameParameters returns Invalid if the gateway before the service has read other parameters from
// the path than the delivered path has.
func (x *exchange) sameParameters(operation Operation, r *http.Request) error {
	if x.PathParameters == nil {
		return nil
	}
	parsed := map[string]string{}
	for _, name := range operation.parameters() {
		parsed[name] = r.PathValue(name)
	}
	if maps.Equal(parsed, x.PathParameters) {
		return nil
	}
	return &metering.Error{
		Code:    metering.Invalid,
		Message: `the path can be read in more than one way: percent-encode it once; no id in it may hold "/", "?" or "%"`,
		Cause:   fmt.Errorf("the gateway read %q from the path, and the path that it delivered holds %q", x.PathParameters, parsed),
	}
}

// ByKey identifies requests by the key in their Authorization header, for a server without an
// authorizer before it.
func ByKey(keys *auth.Authenticator) func(*http.Request) (auth.Principal, error) {
	return func(r *http.Request) (auth.Principal, error) {
		// Several headers are joined into one text, which is not a key.
		return keys.Authenticate(r.Context(), strings.Join(r.Header.Values("Authorization"), ","))
	}
}

func notAllowed(w http.ResponseWriter, r *http.Request, allowed []string) {
	methods := strings.Join(allowed, ", ")
	w.Header().Set("Allow", methods)
	exchangeOf(r).fail(w, refusedWith(http.StatusMethodNotAllowed, "%s is not allowed on this path: it takes %s", r.Method, methods))
}

func noSuchPath(r *http.Request) error {
	return metering.Errorf(metering.NotFound, "there is no path %s here", metering.Quote(r.URL.Path))
}

// exchange is one request with its response, for the log line.
type exchange struct {
	Invocation
	operation    string         // the ID; empty is none
	organization metering.OrgID // of the key, as is keyID
	keyID        string
	change       slog.Attr // what was changed, if the change must be traceable to the caller
	warning      string    // a possible error in the response; empty is none
	failure      error
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

// Invocation is what the host of the API knows of a request, for its log line.
type Invocation struct {
	RequestID string
	TraceID   string // of AWS X-Ray; empty is none
	ColdStart bool   // the first request since the process began

	// PathParameters are what a gateway before the service has read from the path, by the names in
	// Operation.Path. Nil means that no gateway has read any.
	PathParameters map[string]string
}

type invocationKey struct{}

// WithInvocation returns ctx with the invocation of a request. Without it a request gets a request
// ID of its own.
func WithInvocation(ctx context.Context, i Invocation) context.Context {
	return context.WithValue(ctx, invocationKey{}, i)
}

func (a *API) serve(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		invocation, ok := r.Context().Value(invocationKey{}).(Invocation)
		if !ok {
			invocation.RequestID = rand.Text()
		}
		x := &exchange{Invocation: invocation}
		ctx, consumed := a.CountUnits(context.WithValue(r.Context(), exchangeKey{}, x))
		answer := &statusRecorder{ResponseWriter: w}
		defer func() {
			if cause := recover(); cause != nil {
				x.fail(answer, fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
			}
			read, write := consumed()
			x.log(a.Log, r, answer.status, time.Since(start), read, write)
		}()
		if !clean(r.URL) {
			x.fail(answer, noSuchPath(r))
			return
		}
		mux.ServeHTTP(answer, r.WithContext(ctx))
	})
}

// clean reports whether ServeMux serves the path as it is and would not redirect it. A path with an
// encoded slash is not clean: API Gateway decodes it before it looks for a route, and no identifier
// holds one. Nor is a path with bytes that are not UTF-8, which an event can't represent.
func clean(u *url.URL) bool {
	rest, ok := strings.CutPrefix(u.Path, "/")
	if !ok || !utf8.ValidString(u.Path) || strings.Count(u.EscapedPath(), "/") != strings.Count(u.Path, "/") {
		return false
	}
	for segment := range strings.SplitSeq(rest, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// statusRecorder records the status of the response.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// Unwrap is for http.ResponseController.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusRecorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusRecorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// statuses is the one map from a failure to its HTTP status.
var statuses = map[metering.Code]int{
	metering.Internal:           http.StatusInternalServerError,
	metering.Invalid:            http.StatusBadRequest,
	metering.Unauthenticated:    http.StatusUnauthorized,
	metering.Forbidden:          http.StatusForbidden,
	metering.NotFound:           http.StatusNotFound,
	metering.Conflict:           http.StatusConflict,
	metering.PreconditionFailed: http.StatusPreconditionFailed,
	metering.Unavailable:        http.StatusServiceUnavailable,
}

// statusError is a failure whose status differs from that of its code: a status that only HTTP
// knows, or one that the contract requires for an operation.
type statusError struct {
	status int
	error
}

func (e *statusError) Unwrap() error { return e.error }

// refusedWith is Invalid with a status that only HTTP knows.
func refusedWith(status int, format string, args ...any) error {
	return &statusError{status, metering.Errorf(metering.Invalid, format, args...)}
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	return statuses[metering.CodeOf(err)]
}

// fail writes err as a JSON string. An error that is not a metering.Error, or is Internal, is
// written only to the log.
func (x *exchange) fail(w http.ResponseWriter, err error) {
	x.failure = err
	message := "internal error: the log has more under request id " + x.RequestID
	code := metering.CodeOf(err)
	if known, ok := errors.AsType[*metering.Error](err); ok && code != metering.Internal {
		message = auth.Redact(known.Message)
		if known.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((known.RetryAfter+time.Second-1)/time.Second)))
		}
	}
	if code == metering.Unauthenticated {
		w.Header().Set("WWW-Authenticate", "Key")
	}
	if r, ok := w.(*statusRecorder); ok && r.status != 0 {
		return // too late: the response has begun
	}
	writeJSON(w, statusOf(err), wire.AppendText(nil, message))
}

// writeJSON writes a JSON response. It ignores write errors: the client has gone away.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// RequestLogged is the message of the log line of a request.
const RequestLogged = "request"

// noOperation is the operation of a request whose path or method has none. It is a dimension of the
// metrics, and CloudWatch drops a metric whose dimension is empty.
const noOperation = "none"

func (x *exchange) log(to *slog.Logger, r *http.Request, status int, took time.Duration, read, write float64) {
	level, internalErrors := slog.LevelInfo, 0
	if x.warning != "" {
		level = slog.LevelWarn
	}
	if x.failure != nil {
		switch metering.CodeOf(x.failure) {
		case metering.Internal:
			level, internalErrors = slog.LevelError, 1
		case metering.Unavailable:
			level = slog.LevelWarn
		}
	}
	attrs := []slog.Attr{
		slog.String("requestId", x.RequestID),
		slog.String("organization", string(x.organization)),
		slog.String("keyId", x.keyID),
		slog.String("operation", cmp.Or(x.operation, noOperation)),
		slog.String("method", r.Method),
		slog.Int("status", status),
		slog.Float64("durationMs", float64(took.Microseconds())/1000),
		slog.Float64("readUnits", read),
		slog.Float64("writeUnits", write),
		slog.Int("internalErrors", internalErrors), // a number, to be summed up: a status of 500 may be the contract's
	}
	if x.TraceID != "" {
		attrs = append(attrs, slog.String("traceId", x.TraceID))
	}
	if x.ColdStart {
		attrs = append(attrs, slog.Bool("coldStart", true))
	}
	if x.change.Key != "" {
		attrs = append(attrs, x.change)
	}
	if x.warning != "" {
		attrs = append(attrs, slog.String("warning", x.warning))
	}
	if x.failure != nil {
		attrs = append(attrs, slog.String("error", auth.Redact(x.failure.Error())))
	}
	to.LogAttrs(context.WithoutCancel(r.Context()), level, RequestLogged, attrs...)
}
