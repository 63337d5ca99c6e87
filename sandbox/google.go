package sandbox

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Google Service Control v1, with the token endpoints that it needs. Source: the Service Control
// reference and the partner guides "Configuring usage reports" and "Best practices for usage
// reporting".

const (
	opGoogleToken = "token"
	opExchange    = "exchangeToken"
	opImpersonate = "generateAccessToken"
	opCheck       = "check"
	opReport      = "report"

	// googleMaxBody is the max size of a body: 1 MB.
	googleMaxBody = 1_000_000
	// googleLateAfter is the time within which usage must be reported. Google publishes no hard
	// limit; later usage is marked.
	googleLateAfter = time.Hour
	// googleMonthGrace is how long a month stays open after its end, US Pacific.
	googleMonthGrace = time.Hour
	// googleInterval is the longest interval of an operation: usage is reported by the hour.
	googleInterval = time.Hour
	// googleCheckAhead is how far ahead the times of a check may be.
	googleCheckAhead = time.Hour
	googleLifetime   = time.Hour
)

// The codes of google.rpc.Code that are used here, each with its HTTP status and name.
const (
	codeInvalidArgument   = 3
	codeNotFound          = 5
	codePermissionDenied  = 7
	codeResourceExhausted = 8
	codeInternal          = 13
	codeUnavailable       = 14
	codeUnauthenticated   = 16
)

var googleCodes = map[int]struct {
	status int
	name   string
}{
	codeInvalidArgument: {400, "INVALID_ARGUMENT"}, 4: {504, "DEADLINE_EXCEEDED"}, codeNotFound: {404, "NOT_FOUND"},
	codePermissionDenied: {403, "PERMISSION_DENIED"}, codeResourceExhausted: {429, "RESOURCE_EXHAUSTED"},
	codeInternal: {500, "INTERNAL"}, codeUnavailable: {503, "UNAVAILABLE"}, codeUnauthenticated: {401, "UNAUTHENTICATED"},
}

type googleProtocol struct{ *call }

var (
	serviceMethod = regexp.MustCompile(`^/v1/services/([^/:]+):(check|report)$`)
	// secondsForm is how proto's JSON writes a duration.
	secondsForm   = regexp.MustCompile(`^[0-9]+(\.[0-9]{1,9})?s$`)
	impersonation = regexp.MustCompile(`^/v1/projects/-/serviceAccounts/([^/:]+):generateAccessToken$`)
	googleScopes  = []string{"https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/servicecontrol"}
	// impersonationScopes are the scopes that generateAccessToken accepts. Google's clients request
	// one or the other.
	impersonationScopes = []string{"https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/iam"}
	googleTokenURL      = "https://oauth2.googleapis.com/token"
)

func (p googleProtocol) operation() string {
	if p.Method != http.MethodPost {
		return ""
	}
	switch {
	case p.path == "/token":
		return opGoogleToken
	case p.path == "/v1/token":
		return opExchange
	case impersonation.MatchString(p.path):
		return opImpersonate
	}
	if m := serviceMethod.FindStringSubmatch(p.path); m != nil {
		return m[2]
	}
	return ""
}

// throttle allows all requests: Google documents no rate.
func (p googleProtocol) throttle() (response, bool) { return response{}, false }

func (p googleProtocol) respond() response {
	switch p.call.operation {
	case opGoogleToken:
		return p.token()
	case opExchange:
		return p.exchange()
	case opImpersonate:
		return p.impersonate()
	case opCheck, opReport:
		return p.serviceControl()
	}
	p.refuse(Refused, "404", "there is no such method")
	return googleStatus(http.StatusNotFound, "NOT_FOUND", "The requested URL was not found on this server.")
}

func googleStatus(status int, name, message string) response {
	return jsonResponse(status, "application/json; charset=UTF-8", map[string]any{
		"error": map[string]any{"code": status, "message": message, "status": name},
	})
}

// fail refuses the whole request with a code of google.rpc.Code.
func (p googleProtocol) fail(code int, format string, args ...any) response {
	message := fmt.Sprintf(format, args...)
	c := googleCodes[code]
	p.refuse(Refused, c.name, message)
	return googleStatus(c.status, c.name, message)
}

func (p googleProtocol) failure(h *hit) response {
	if h.is(Throttled) {
		return googleStatus(http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", "Quota exceeded.")
	}
	status := cmp.Or(h.Status, http.StatusInternalServerError)
	name := "INTERNAL"
	for _, c := range googleCodes {
		if c.status == status {
			name = c.name
		}
	}
	return googleStatus(status, name, "The service failed.")
}

// oauthError is a failure of a token endpoint.
func (p googleProtocol) oauthError(status int, code, format string, args ...any) response {
	description := fmt.Sprintf(format, args...)
	p.refuse(Refused, code, description)
	return jsonResponse(status, "application/json; charset=UTF-8", map[string]string{"error": code, "error_description": description})
}

// give issues a token.
func (p googleProtocol) give(principal string, federated bool, scopes []string, lifetime time.Duration) token {
	t := token{Value: "ya29." + p.secret("google token"), Marketplace: Google, Principal: principal, Federated: federated, Scopes: scopes, Expires: p.now.Add(lifetime)}
	p.tokens = append(p.tokens, t)
	p.decisions = append(p.decisions, Decision{Outcome: Answered})
	return t
}

// token is the token endpoint for a service account's key: a JWT that the key has signed. It checks
// that a signature exists, but not its key. It checks the JWT's times against each other, since
// they are of the client's clock.
func (p googleProtocol) token() response {
	form, err := p.form()
	if err != nil {
		return p.oauthError(http.StatusBadRequest, "invalid_request", "%v", err)
	}
	if form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		return p.oauthError(http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: %s", form.Get("grant_type"))
	}
	claims, reason := p.assertion(form.Get("assertion"))
	if reason != "" {
		return p.oauthError(http.StatusBadRequest, "invalid_grant", "Invalid JWT: %s", reason)
	}
	if !slices.ContainsFunc(p.state.catalog.Google.ServiceAccounts, func(a GoogleServiceAccount) bool { return a.Email == claims.Issuer }) {
		return p.oauthError(http.StatusBadRequest, "invalid_grant", "Invalid grant: account not found")
	}
	scopes := strings.Fields(claims.Scope)
	if len(scopes) == 0 {
		return p.oauthError(http.StatusBadRequest, "invalid_scope", "Invalid OAuth scope or ID token audience provided.")
	}
	t := p.give(claims.Issuer, false, scopes, googleLifetime)
	return jsonResponse(http.StatusOK, "application/json; charset=UTF-8", map[string]any{
		"access_token": t.Value, "expires_in": int(googleLifetime.Seconds()) - 1, "token_type": "Bearer",
	})
}

type jwtClaims struct {
	Issuer   string      `json:"iss"`
	Scope    string      `json:"scope"`
	Audience string      `json:"aud"`
	IssuedAt json.Number `json:"iat"`
	Expires  json.Number `json:"exp"`
}

func (p googleProtocol) assertion(jwt string) (claims jwtClaims, reason string) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return claims, "it must have three parts"
	}
	var header struct {
		Algorithm string `json:"alg"`
	}
	for i, into := range []any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			return claims, "its parts must be JSON in base64url"
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	issued, issuedErr := claims.IssuedAt.Int64()
	expires, expiresErr := claims.Expires.Int64()
	switch {
	case header.Algorithm != "RS256":
		return claims, "alg must be RS256"
	case err != nil || len(signature) < 128:
		return claims, "the signature must be RSA's, in base64url"
	case issuedErr != nil || expiresErr != nil || expires <= issued || expires-issued > int64(googleLifetime.Seconds()):
		return claims, "iat and exp must be whole numbers, exp at most an hour after iat"
	case claims.Audience != googleTokenURL && !strings.HasSuffix(claims.Audience, "/gcp/token"):
		return claims, "aud must be " + googleTokenURL + ", or /gcp/token of the sandbox"
	}
	return claims, ""
}

// exchange is the token exchange of Workload Identity Federation, for AWS credentials. The subject
// token is a signed request to GetCallerIdentity. Its signature is checked for presence and form.
func (p googleProtocol) exchange() response {
	form, err := p.form()
	if err != nil {
		return p.oauthError(http.StatusBadRequest, "invalid_request", "%v", err)
	}
	for _, m := range []struct{ name, want string }{
		{"grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"},
		{"requested_token_type", "urn:ietf:params:oauth:token-type:access_token"},
		{"subject_token_type", "urn:ietf:params:aws:token-type:aws4_request"},
	} {
		if form.Get(m.name) != m.want {
			return p.oauthError(http.StatusBadRequest, "invalid_request", "%s must be %s", m.name, m.want)
		}
	}
	audience := form.Get("audience")
	pool := slices.IndexFunc(p.state.catalog.Google.WorkloadIdentity, func(w GoogleWorkloadIdentity) bool { return w.Audience == audience })
	if pool < 0 {
		return p.oauthError(http.StatusBadRequest, "invalid_target", "The target service indicated by the \"audience\" parameters is invalid.")
	}
	scopes := strings.Fields(form.Get("scope"))
	if !slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(impersonationScopes, s) }) {
		return p.oauthError(http.StatusBadRequest, "invalid_scope", "scope must have one of %v", impersonationScopes)
	}
	if reason := subjectToken(form.Get("subject_token"), audience); reason != "" {
		return p.oauthError(http.StatusBadRequest, "invalid_grant", "The subject token is not valid: %s", reason)
	}
	t := p.give(audience, true, scopes, googleLifetime)
	return jsonResponse(http.StatusOK, "application/json; charset=UTF-8", map[string]any{
		"access_token": t.Value, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer",
		"expires_in": int(googleLifetime.Seconds()),
	})
}

// subjectToken returns what is wrong with the description of a signed request to GetCallerIdentity,
// or an empty string.
func subjectToken(text, audience string) string {
	decoded, err := url.QueryUnescape(text)
	if err != nil {
		return "it must be percent-encoded JSON"
	}
	var request struct {
		URL     string `json:"url"`
		Method  string `json:"method"`
		Headers []struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		} `json:"headers"`
	}
	if err := json.Unmarshal([]byte(decoded), &request); err != nil {
		return "it must be percent-encoded JSON"
	}
	headers := map[string]string{}
	for _, h := range request.Headers {
		headers[strings.ToLower(h.Key)] = h.Value
	}
	u, err := url.Parse(request.URL)
	authorization := headers["authorization"]
	switch {
	case err != nil || u.Scheme != "https" || !strings.HasPrefix(u.Host, "sts.") || !strings.HasSuffix(u.Host, ".amazonaws.com") || u.Query().Get("Action") != "GetCallerIdentity":
		return "url must be GetCallerIdentity of AWS STS"
	case request.Method != http.MethodPost:
		return "method must be POST"
	case headers["x-goog-cloud-target-resource"] != audience:
		return "x-goog-cloud-target-resource must be the audience"
	case headers["x-amz-date"] == "":
		return "x-amz-date is missing"
	case !strings.HasPrefix(authorization, "AWS4-HMAC-SHA256 ") || !strings.Contains(authorization, "Signature="):
		// Signing x-goog-cloud-target-resource is recommended, but not all of Google's clients do
		// it.
		return "authorization must be AWS4-HMAC-SHA256"
	}
	return ""
}

// impersonate is generateAccessToken: it exchanges a federated token for a service account's.
func (p googleProtocol) impersonate() response {
	t, reason := p.bearer()
	if reason != "" {
		return p.fail(codeUnauthenticated, "Request had invalid authentication credentials: %s.", reason)
	}
	email := impersonation.FindStringSubmatch(p.path)[1]
	pool := slices.IndexFunc(p.state.catalog.Google.WorkloadIdentity, func(w GoogleWorkloadIdentity) bool { return t.Federated && w.Audience == t.Principal })
	if pool < 0 || !slices.Contains(p.state.catalog.Google.WorkloadIdentity[pool].ServiceAccounts, email) {
		return p.fail(codePermissionDenied, "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).")
	}
	if failed := p.unreadable(); failed != "" {
		return p.fail(codeInvalidArgument, "%s", failed)
	}
	body, err := parseObject(p.body)
	if err == nil {
		err = body.only("", "scope", "lifetime", "delegates")
	}
	var lifetimeText string
	var list []any
	if err == nil {
		lifetimeText, err = body.text("", "lifetime")
	}
	if err == nil {
		list, err = get[[]any](body, "", "scope", "a list")
	}
	if err != nil {
		return p.fail(codeInvalidArgument, "Invalid JSON payload received. %v", err)
	}
	var scopes []string
	for _, v := range list {
		scope, ok := v.(string)
		if !ok {
			return p.fail(codeInvalidArgument, "scope must be a list of strings")
		}
		scopes = append(scopes, scope)
	}
	lifetime := googleLifetime
	if lifetimeText != "" {
		if lifetime, err = time.ParseDuration(lifetimeText); err != nil || !secondsForm.MatchString(lifetimeText) {
			return p.fail(codeInvalidArgument, "lifetime must be as in 3600s")
		}
	}
	if len(scopes) == 0 || lifetime <= 0 || lifetime > googleLifetime {
		return p.fail(codeInvalidArgument, "it needs scope, and a lifetime of at most 3600s")
	}
	given := p.give(email, false, scopes, lifetime)
	return jsonResponse(http.StatusOK, "application/json; charset=UTF-8", map[string]string{
		"accessToken": given.Value, "expireTime": given.Expires.Format("2006-01-02T15:04:05Z"),
	})
}

// unreadable returns why the body cannot be read as JSON of at most 1 MB, or an empty string.
func (p googleProtocol) unreadable() string {
	if len(p.body) > googleMaxBody {
		return fmt.Sprintf("Request payload size exceeds the limit: %d bytes.", googleMaxBody)
	}
	if kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return "Content-Type must be application/json"
	}
	return ""
}

// serviceControl handles check and report.
func (p googleProtocol) serviceControl() response {
	t, reason := p.bearer()
	if reason != "" {
		return p.fail(codeUnauthenticated, "Request had invalid authentication credentials: %s.", reason)
	}
	if !slices.ContainsFunc(t.Scopes, func(s string) bool { return slices.Contains(googleScopes, s) }) {
		return p.fail(codePermissionDenied, "Request had insufficient authentication scopes.")
	}
	name := serviceMethod.FindStringSubmatch(p.path)[1]
	service := p.state.catalog.services[name]
	if service == nil || t.Federated || len(service.Reporters) > 0 && !slices.Contains(service.Reporters, t.Principal) {
		return p.fail(codePermissionDenied, "Permission 'servicemanagement.services.%s' denied on service '%s' (or it may not exist).", p.call.operation, name)
	}
	if failed := p.unreadable(); failed != "" {
		return p.fail(codeInvalidArgument, "%s", failed)
	}
	for key := range p.URL.Query() {
		if !slices.Contains([]string{"alt", "prettyPrint", "$.xgafv", "fields", "key", "quotaUser", "uploadType", "upload_protocol"}, key) {
			return p.fail(codeInvalidArgument, "Invalid JSON payload received. Unknown name %q: Cannot bind query parameter.", key)
		}
	}
	body, err := parseObject(p.body)
	if err != nil {
		return p.fail(codeInvalidArgument, "Invalid JSON payload received. %v", err)
	}
	if p.call.operation == opCheck {
		return p.check(service, body)
	}
	return p.report(service, body)
}

// A googleOperation is an operation as it was sent.
type googleOperation struct {
	id, consumer string
	start, end   time.Time
	hasEnd       bool
	values       []googleValue
	labelled     bool   // it has userLabels
	wrong        string // an error of this operation only
}

type googleValue struct {
	metric string // without the service's name
	value  int64
}

// readOperation reads an operation. An error fails the whole request.
func (p googleProtocol) readOperation(service *GoogleService, o *object, at string) (op googleOperation, err error) {
	err = o.only(at, "operationId", "operationName", "consumerId", "startTime", "endTime", "labels", "metricValueSets", "userLabels",
		"importance", "logEntries", "quotaProperties", "resources", "traceSpans")
	texts := map[string]string{}
	for _, name := range []string{"operationId", "operationName", "consumerId", "importance"} {
		if err == nil {
			texts[name], err = o.text(at, name)
		}
	}
	for _, name := range []string{"logEntries", "resources", "traceSpans"} {
		if err == nil {
			_, err = o.objects(at, name)
		}
	}
	if err == nil {
		_, err = get[*object](o, at, "quotaProperties", "an object")
	}
	if err == nil && o.has("importance") && !slices.Contains([]string{"LOW", "HIGH"}, texts["importance"]) {
		err = misshapen(member(at, "importance"), "it must be LOW or HIGH")
	}
	for _, name := range []string{"labels", "userLabels"} {
		if err == nil {
			_, err = o.texts(at, name)
		}
	}
	var sets []*object
	if err == nil {
		sets, err = o.objects(at, "metricValueSets")
	}
	if err != nil {
		return op, err
	}
	op.id, op.consumer, op.labelled, op.hasEnd = texts["operationId"], texts["consumerId"], o.has("userLabels"), o.has("endTime")
	if op.start, err = googleTime(o, at, "startTime"); err != nil {
		return op, err
	}
	if op.end, err = googleTime(o, at, "endTime"); err != nil {
		return op, err
	}
	labels, seen := o.members["labels"], map[string]bool{}
	for i, set := range sets {
		if err := op.readSet(service, set, member(at, element("metricValueSets", i)), labels, seen); err != nil {
			return op, err
		}
	}
	return op, nil
}

// googleTime reads a time, or the zero time if it is absent.
func googleTime(o *object, at, name string) (time.Time, error) {
	text, err := o.text(at, name)
	if err != nil || !o.has(name) {
		return time.Time{}, err
	}
	t, err := parseTime(text)
	if err != nil {
		err = misshapen(member(at, name), "%v", err)
	}
	return t, err
}

// readSet reads the values of a metric. seen has the metrics and labels so far: two values of one
// metric with equal labels fail the whole request.
func (op *googleOperation) readSet(service *GoogleService, set *object, at string, labels any, seen map[string]bool) error {
	err := set.only(at, "metricName", "metricValues")
	var name string
	var values []*object
	if err == nil {
		name, err = set.text(at, "metricName")
	}
	if err == nil {
		values, err = set.objects(at, "metricValues")
	}
	if err != nil {
		return err
	}
	short, ok := strings.CutPrefix(name, service.Name+"/")
	var metric *GoogleMetric
	for i := range service.Metrics {
		if ok && service.Metrics[i].Name == short {
			metric = &service.Metrics[i]
		}
	}
	if metric == nil {
		op.blame("metric %q is not one of the service: it must be %s/{metric}", name, service.Name)
	} else if cmp.Or(metric.Kind, "DELTA") != "DELTA" || cmp.Or(metric.ValueType, "INT64") != "INT64" {
		op.blame("metric %q is not of kind DELTA and type INT64", name)
	}
	if len(values) == 0 {
		op.blame("metric %q has no values", name)
	}
	for i, v := range values {
		at := member(at, element("metricValues", i))
		err := v.only(at, "boolValue", "distributionValue", "doubleValue", "endTime", "int64Value", "labels", "moneyValue", "startTime", "stringValue")
		var own map[string]string
		if err == nil {
			own, err = v.texts(at, "labels")
		}
		if err == nil {
			err = op.readInterval(v, at)
		}
		if err != nil {
			return err
		}
		key := labelKey(name, labels, own)
		if seen[key] {
			return misshapen(at, "Duplicated metric value: %s appears twice with the same labels", name)
		}
		seen[key] = true
		value, reason, err := int64Value(v, at)
		if err != nil {
			return err
		}
		if reason != "" {
			op.blame("metric %q: %s", name, reason)
		}
		op.values = append(op.values, googleValue{short, value})
	}
	return nil
}

// readInterval reads the interval of a value. It must be within the operation's.
func (op *googleOperation) readInterval(v *object, at string) error {
	for _, name := range []string{"startTime", "endTime"} {
		t, err := googleTime(v, at, name)
		if err != nil {
			return err
		}
		if v.has(name) && (t.Before(op.start) || t.After(op.end)) {
			op.blame("%s of a value is outside the operation's interval: it %s", name, undocumented)
		}
	}
	return nil
}

// labelKey is a metric with all labels of a value. The value's own labels override the operation's.
func labelKey(metric string, labels any, own map[string]string) string {
	all := map[string]string{}
	if o, ok := labels.(*object); ok {
		for name, v := range o.members {
			all[name], _ = v.(string)
		}
	}
	for name, v := range own {
		all[name] = v
	}
	text, _ := json.Marshal(all) // sorted by name
	return metric + " " + string(text)
}

// int64Value reads the value. Proto's JSON writes it as a string and also accepts a number.
func int64Value(v *object, at string) (value int64, reason string, err error) {
	if _, err = get[bool](v, at, "boolValue", "a boolean"); err == nil {
		_, err = v.text(at, "stringValue")
	}
	for _, name := range []string{"distributionValue", "moneyValue"} {
		if err == nil {
			_, err = get[*object](v, at, name, "an object")
		}
	}
	if err != nil {
		return 0, "", err
	}
	if v.has("doubleValue") {
		if _, err := strconv.ParseFloat(numeral(v.members["doubleValue"]), 64); err != nil {
			return 0, "", misshapen(member(at, "doubleValue"), "it must be a double")
		}
	}
	if v.has("int64Value") {
		text := numeral(v.members["int64Value"])
		if value, err = strconv.ParseInt(text, 10, 64); err != nil || !int64Form.MatchString(text) {
			return 0, "", misshapen(member(at, "int64Value"), "it must be a 64-bit integer, without a plus sign and leading zeros")
		}
	}
	for _, other := range []string{"boolValue", "distributionValue", "doubleValue", "moneyValue", "stringValue"} {
		if v.has(other) {
			return 0, other + " is set: the metric's type is INT64", nil
		}
	}
	switch {
	case !v.has("int64Value"):
		return 0, "int64Value is missing", nil
	case value < 0:
		return 0, "a DELTA must not be negative", nil
	case value == 0:
		return 0, "int64Value is 0: what Google does with it " + undocumented, nil
	}
	return value, "", nil
}

// int64Form is how proto's JSON writes an integer.
var int64Form = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// numeral returns the text of a number, which proto's JSON also accepts as a string, or an empty
// string.
func numeral(v any) string {
	switch n := v.(type) {
	case string:
		return n
	case json.Number:
		return n.String()
	}
	return ""
}

// undocumented ends the reason of a refusal for which there is no documented rule.
const undocumented = "is not documented, so it is refused here"

func (op *googleOperation) blame(format string, args ...any) {
	if op.wrong == "" {
		op.wrong = fmt.Sprintf(format, args...)
	}
}

// check is services.check.
func (p googleProtocol) check(service *GoogleService, body *object) response {
	err := body.only("", "operation", "requestProjectSettings", "serviceConfigId", "skipActivationCheck")
	var o *object
	if err == nil {
		o, err = get[*object](body, "", "operation", "an object")
	}
	if err == nil && o == nil {
		err = misshapen("operation", "it is missing")
	}
	for _, name := range []string{"requestProjectSettings", "skipActivationCheck"} {
		if err == nil {
			_, err = get[bool](body, "", name, "a boolean")
		}
	}
	if err == nil {
		_, err = body.text("", "serviceConfigId")
	}
	var op googleOperation
	if err == nil {
		op, err = p.readOperation(service, o, "operation")
	}
	ahead := p.now.Add(googleCheckAhead)
	switch {
	case err != nil:
		return p.fail(codeInvalidArgument, "Invalid JSON payload received. %v", err)
	case op.labelled:
		return p.fail(codeInvalidArgument, "operation.userLabels must not be sent to check")
	case op.id == "" || op.consumer == "" || op.start.IsZero():
		return p.fail(codeInvalidArgument, "operation needs operationId, consumerId and startTime")
	case op.hasEnd && op.end.Before(op.start):
		return p.fail(codeInvalidArgument, "operation.endTime must not be before startTime")
	case op.start.After(ahead) || op.end.After(ahead):
		return p.fail(codeInvalidArgument, "the times of operation are more than an hour in the future")
	case op.hasEnd && op.end.Sub(op.start) > googleInterval:
		r := p.fail(codeInvalidArgument, "%s", longInterval)
		p.decisions[0].Outcome = Undocumented
		return r
	}
	result := map[string]any{"operationId": op.id, "serviceConfigId": "sandbox", "serviceRolloutId": "sandbox"}
	code, detail := p.standing(service, &op)
	if p.fault.is(CheckError) {
		code, detail = cmp.Or(p.fault.Code, "BILLING_STATUS_UNAVAILABLE"), "fault "+CheckError
	}
	if code != "" {
		result["checkErrors"] = []map[string]string{{"code": code, "subject": op.consumer, "detail": detail}}
	}
	p.decisions = append(p.decisions, Decision{Identity: op.id, Outcome: Answered, Status: code, Reason: detail})
	return jsonResponse(http.StatusOK, "application/json; charset=UTF-8", result)
}

// standing returns why the consumer cannot be billed for the operation, as a code of check, or
// empty strings.
func (p googleProtocol) standing(service *GoogleService, op *googleOperation) (code, detail string) {
	e := p.state.catalog.entitlements[op.consumer]
	switch {
	case e == nil || e.Service != service.Name:
		return "NOT_FOUND", "the consumer has no entitlement to the service"
	case e.State != GoogleActive:
		return e.State, "the entitlement's state"
	case e.Cancelled == nil || p.now.Before(*e.Cancelled):
		return "", ""
	case p.now.Sub(*e.Cancelled) >= cancellationGrace:
		return GoogleNotActivated, "the entitlement was cancelled an hour ago, or earlier"
	case !op.start.Before(*e.Cancelled):
		return GoogleNotActivated, "the operation starts after the cancellation"
	}
	return "", ""
}

// report is services.report. Operations that fail are in reportErrors; the others are done.
func (p googleProtocol) report(service *GoogleService, body *object) response {
	err := body.only("", "operations", "serviceConfigId")
	var list []*object
	if err == nil {
		list, err = body.objects("", "operations")
	}
	if err == nil {
		_, err = body.text("", "serviceConfigId")
	}
	ops := make([]googleOperation, len(list))
	for i, o := range list {
		if err == nil {
			ops[i], err = p.readOperation(service, o, element("operations", i))
		}
	}
	if err != nil {
		return p.fail(codeInvalidArgument, "Invalid JSON payload received. %v", err)
	}
	if len(ops) == 0 {
		r := p.fail(codeInvalidArgument, "There are no operations.")
		p.decisions[0].Outcome = Undocumented
		return r
	}
	undone := map[int]bool{}
	if p.fault.is(Unprocessed) || p.fault.is(Partial) {
		undone = p.fault.chosen(len(ops))
	}
	type status struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	type reportError struct {
		OperationID string `json:"operationId"`
		Status      status `json:"status"`
	}
	var failed []reportError
	for i := range ops {
		op := &ops[i]
		if undone[i] {
			code, err := strconv.Atoi(p.fault.Code)
			if err != nil {
				code = codeUnavailable
			}
			p.decided(i, op.id, NotDone, strconv.Itoa(code), "fault "+p.fault.fault)
			failed = append(failed, reportError{op.id, status{code, "The operation was not processed."}})
			continue
		}
		// An accepted operation stays valid, so all checks come after.
		if earlier := p.find(identityOf(service.Name, "0", op.id)); earlier != nil {
			p.decided(i, op.id, Duplicate, "", fmt.Sprintf("request %d was accepted with this operationId; nothing is added", earlier.Request))
			continue
		}
		code, reason := p.judge(service, op)
		if code != 0 {
			outcome := Refused
			if strings.HasSuffix(reason, undocumented) {
				outcome = Undocumented
			}
			p.decided(i, op.id, outcome, strconv.Itoa(code), reason)
			failed = append(failed, reportError{op.id, status{code, reason}})
			continue
		}
		p.store(service, op)
		p.decided(i, op.id, Accepted, "", "")
	}
	result := map[string]any{"serviceConfigId": "sandbox", "serviceRolloutId": "sandbox"}
	if failed != nil {
		result["reportErrors"] = failed
	}
	return jsonResponse(http.StatusOK, "application/json; charset=UTF-8", result)
}

// judge returns the code of the operation's error, or 0.
func (p googleProtocol) judge(service *GoogleService, op *googleOperation) (code int, reason string) {
	switch {
	case op.wrong != "":
		return codeInvalidArgument, op.wrong
	case op.id == "" || op.consumer == "":
		return codeInvalidArgument, "operationId and consumerId are required"
	case op.start.IsZero() || !op.hasEnd:
		return codeInvalidArgument, "startTime and endTime are required"
	case !op.start.Before(op.end):
		return codeInvalidArgument, "endTime must be after startTime"
	case op.end.After(p.now):
		return codeInvalidArgument, "endTime is in the future"
	case len(op.values) == 0:
		return codeInvalidArgument, "metricValueSets are required"
	case op.end.Sub(op.start) > googleInterval:
		return codeInvalidArgument, longInterval
	case !p.now.Before(googleDeadline(op.start)):
		return codeInvalidArgument, "the month of the usage closed on the 1st at 01:00 US Pacific"
	}
	if e := p.state.catalog.entitlements[op.consumer]; e != nil && e.Service != service.Name {
		return codePermissionDenied, "the consumer's entitlement is to another service"
	}
	if standing, detail := p.standing(service, op); standing != "" {
		return codeNotFound, "the entitlement is not active: " + detail
	}
	if e := p.state.catalog.entitlements[op.consumer]; e.Cancelled != nil && !p.now.Before(*e.Cancelled) && op.end.After(*e.Cancelled) {
		return codeNotFound, "the entitlement is not active: the operation ends after the cancellation"
	}
	return 0, ""
}

const longInterval = "an interval longer than an hour " + undocumented

// googleDeadline returns when the month closes of usage that starts at start: 01:00 US Pacific on
// the 1st of the next month. The end of the usage is never in an earlier month.
func googleDeadline(start time.Time) time.Time {
	first := start.In(pacific)
	return time.Date(first.Year(), first.Month()+1, 1, 0, 0, 0, 0, pacific).Add(googleMonthGrace)
}

// store stores the operation's values: a record for each, numbered from 0.
func (p googleProtocol) store(service *GoogleService, op *googleOperation) {
	entitlement := p.state.catalog.entitlements[op.consumer]
	for n, v := range op.values {
		price := ""
		for _, m := range service.Metrics {
			if m.Name == v.metric {
				price = m.Price
			}
		}
		p.records = append(p.records, Record{
			Marketplace: Google, Identity: identityOf(service.Name, strconv.Itoa(n), op.id), ID: op.id, Request: p.number, Buyer: cmp.Or(entitlement.Buyer, op.consumer),
			Product: service.Name, Resource: op.consumer, Dimension: v.metric, Time: op.end, Accepted: p.now,
			Late: p.now.Sub(op.end) > googleLateAfter, Quantity: strconv.FormatInt(v.value, 10),
			Price: priceOf(price), Currency: currencyOf(service.Currency),
		})
	}
}
