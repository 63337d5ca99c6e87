package apitest

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/awslabs/aws-lambda-go-api-proxy/core"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

var scopeNames = []string{"read", "write", "config", "admin"}

// Every operation with every set of scopes: it is done if the set has a scope that admits to it.
// Otherwise it is refused, and nothing is requested from the table.
func TestScopes_EverySetOnEveryOperation(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for set := 1; set < 16; set++ {
			names := []string{}
			for i, name := range scopeNames {
				if set&(1<<i) != 0 {
					names = append(names, name)
				}
			}
			org := fmt.Sprint("acme ", set)
			a.giveAll(t, org)
			key := a.newKey(t, org, allScopes)
			a.setAttribute(t, key, "scopes", strings.Join(names, ","))
			before := a.dump(t)
			for _, o := range operations() {
				if o.admits(names...) {
					continue
				}
				got := a.do(t, o.example.of(org).with(key))
				message := wantError(t, got, http.StatusForbidden, append([]string{"admin", strings.Join(names, ",")}, strings.Fields(o.scopes)...)...)
				if t.Failed() || len(got.operation) > 0 {
					t.Fatalf("%s with %s: %s, after %s", o.id, names, message, shapes(got.operation))
				}
			}
			wantSame(t, before, a.dump(t))
			for _, o := range operations() {
				if !o.admits(names...) {
					continue
				}
				if got := a.do(t, o.example.of(org).with(key)); got.status != http.StatusOK {
					t.Errorf("%s with %s: %d %s", o.id, names, got.status, got.body)
				}
			}
		}
	})
}

func (a *api) setAttribute(t testing.TB, key auth.Key, name, value string) {
	t.Helper()
	expression := "SET " + name + " = :value"
	if _, err := a.client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: &a.tableName, Key: map[string]types.AttributeValue{"PK": text(keyPartition(key)), "SK": text("KEY")},
		UpdateExpression: &expression, ExpressionAttributeValues: map[string]types.AttributeValue{":value": text(value)},
	}); err != nil {
		t.Fatal(err)
	}
}

// A key is valid for its own organization. Any other organization is refused with the same message
// and at the same cost, whether it exists or not.
func TestOrganizations_OtherIsRefusedIfItExistsOrNot(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		key := a.newKey(t, "acme", allScopes)
		want(t, a.do(t, request{method: "GET", path: listPath("acme")}.with(key)), http.StatusOK) // its use is noted
		refusals := func(org string) (all map[string][]string) {
			all = map[string][]string{}
			for operation, r := range everyOperation(org) {
				got := a.do(t, r.with(key))
				wantError(t, got, http.StatusForbidden, "key")
				headers := maps.Clone(got.headers)
				headers.Del("Date")
				all[operation] = append([]string{fmt.Sprint(got.status), got.body, fmt.Sprint(headers)}, append(shapes(got.authentication), shapes(got.operation)...)...)
			}
			return all
		}
		for _, org := range []string{"other", "Acme", "acm", "acmee", "acme#STATUS#CREATED", "*", strings.Repeat("o", 64)} {
			before := refusals(org)
			a.giveAll(t, org)
			stored := a.dump(t)
			wantSame(t, before, refusals(org))
			if wantSame(t, stored, a.dump(t)); t.Failed() {
				t.Fatal(org)
			}
		}
	})
}

// The same organization may be spelled in several ways in a path; the decoded name counts. A path
// that API Gateway decodes once more than its parameters is refused earlier.
func TestOrganizations_AreComparedDecoded(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		key := a.newKey(t, "a b#c", auth.Read)
		for path, status := range map[string]int{
			"/org/a%20b%23c/usageRecordGroup": 200, "/org/%61%20b%23%63/usageRecordGroup": 200,
			"/org/a+b%23c/usageRecordGroup": 403, "/org/a%2520b%2523c/usageRecordGroup": 403, "/org/a%20b%2523c/usageRecordGroup": 403,
			"/org/a%20b%23C/usageRecordGroup": 403, "/org/a%20b%23c%20/usageRecordGroup": 403, "/org/a%20b/usageRecordGroup": 403,
		} {
			if _, twice := a.way.(overLambda); twice && strings.Contains(path, "%25") {
				status = http.StatusBadRequest
			}
			if got := a.do(t, request{method: "GET", path: path}.with(key)); got.status != status {
				t.Errorf("%s: %d %s", path, got.status, got.body)
			}
		}
	})
}

// An API without authentication admits no client: no default lets requests in.
func TestAPI_WithoutAuthenticationRefuses(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	a := serve(t, "http", tbl, tbl)
	a.table = tbl
	a.giveAll(t, "acme")
	key := a.newKey(t, "acme", allScopes)
	handler := (&httpapi.API{Table: tbl, Log: slog.New(slog.DiscardHandler), Now: a.clock.now, CountUnits: table.CountUnits}).Handler()
	for operation, r := range everyOperation("acme") {
		ctx, requests := tabletest.Record(t.Context())
		sent := httptest.NewRequestWithContext(ctx, r.method, r.path, strings.NewReader(r.body))
		sent.Header.Set("Authorization", "Key "+string(key))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, sent)
		wantError(t, answer{status: w.Code, body: w.Body.String()}, http.StatusUnauthorized)
		if len(requests()) > 0 {
			t.Errorf("%s asked the table %s", operation, shapes(requests()))
		}
	}
}

// A function that is invoked without our authorizer's context refuses, whatever else the event
// holds.
func TestFunction_WithoutTheAuthorizersContextRefuses(t *testing.T) {
	t.Parallel()
	a := newAPI(t, "lambda")
	a.giveAll(t, "acme")
	with := func(change admitted) doc {
		context := admitted{"organization": "acme", "keyId": "0123456789abcdef", "scopes": "read,write,config,admin"}
		maps.Copy(context, change)
		maps.DeleteFunc(context, func(_ string, value any) bool { return value == "absent" })
		return doc{"lambda": context}
	}
	before := a.dump(t)
	for _, authorizer := range []doc{
		nil,
		{},
		{"lambda": nil},
		{"lambda": admitted{}},
		{"lambda": admitted{"principalId": "acme"}},
		{"organization": "acme", "keyId": "0123456789abcdef", "scopes": "admin"},
		{"jwt": doc{"claims": doc{"organization": "acme", "keyId": "0123456789abcdef", "scopes": "admin"}, "scopes": []string{"read", "admin"}}},
		{"iam": doc{"accessKey": "AKIAIOSFODNN7EXAMPLE", "accountId": "123456789012", "callerId": "A", "userArn": "arn:aws:iam::123456789012:user/acme", "userId": "A"}},
		with(admitted{"organization": "absent"}), with(admitted{"organization": ""}), with(admitted{"organization": nil}), with(admitted{"organization": 5}), with(admitted{"organization": true}),
		with(admitted{"organization": []string{"acme"}}), with(admitted{"organization": doc{"S": "acme"}}), with(admitted{"organization": ".."}), with(admitted{"organization": "a/b"}),
		with(admitted{"organization": "absent", "Organization": "acme"}), with(admitted{"organization": strings.Repeat("o", 65)}),
		with(admitted{"keyId": "absent"}), with(admitted{"keyId": ""}), with(admitted{"keyId": nil}), with(admitted{"keyId": 5}),
		with(admitted{"scopes": "absent"}), with(admitted{"scopes": ""}), with(admitted{"scopes": nil}), with(admitted{"scopes": "read,"}),
		with(admitted{"scopes": []string{"read", "write", "config", "admin"}}), with(admitted{"scopes": 15}), with(admitted{"scopes": ",read"}),
		with(admitted{"expiryTime": "2024-07-29T15:51:28.071Z"}), with(admitted{"expiryTime": "2024-07-29T15:51:28.070Z"}), with(admitted{"expiryTime": "1970-01-01T00:00:00.000Z"}),
		with(admitted{"expiryTime": ""}), with(admitted{"expiryTime": nil}), with(admitted{"expiryTime": "never"}), with(admitted{"expiryTime": 4102444800}), with(admitted{"expiryTime": doc{}}),
	} {
		for operation, r := range everyOperation("acme") {
			got := a.invoke(t, r, authorizer)
			if wantError(t, got, http.StatusUnauthorized); t.Failed() || len(got.operation) > 0 {
				t.Fatalf("%s with %v asked the table %s", operation, authorizer, shapes(got.operation))
			}
		}
	}
	// Scopes that only a newer authorizer knows allow nothing; known scopes beside them do.
	for _, scopes := range []string{"everything", "ADMIN", "report,everything"} {
		for operation, r := range everyOperation("acme") {
			got := a.invoke(t, r, with(admitted{"scopes": scopes}))
			if wantError(t, got, http.StatusForbidden); t.Failed() || len(got.operation) > 0 {
				t.Fatalf("%s with the scopes %s asked the table %s", operation, scopes, shapes(got.operation))
			}
		}
	}
	wantSame(t, before, a.dump(t))
	for _, c := range []struct {
		change admitted
		known  string
	}{
		{admitted{"scopes": "read,everything"}, "read"},
		{admitted{"expiryTime": "2024-07-29T15:51:28.072Z"}, "admin"}, // the control: with the whole context it responds
	} {
		for _, o := range operations() {
			got := a.invoke(t, o.example.of("acme"), with(c.change))
			if o.admits(c.known) {
				want(t, got, http.StatusOK)
			} else {
				wantError(t, got, http.StatusForbidden)
			}
		}
	}
}

// invoke invokes the function past API Gateway, with that value in the event's
// requestContext.authorizer.
func (a *api) invoke(t testing.TB, r request, authorizer doc) answer {
	t.Helper()
	event, err := eventOf(r, authorizer)
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.way.(overLambda).invoke(t.Context(), event)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A cached response of the authorizer is not valid for longer than the key.
func TestAuthorizer_CachedResponseExpiresWithTheKey(t *testing.T) {
	t.Parallel()
	a := newAPI(t, "lambda")
	a.giveAll(t, "acme")
	key := a.newKey(t, "acme", allScopes, func(r *auth.Record) { r.ExpiryTime = now.Add(time.Minute) })
	context, refusal, err := a.way.(overLambda).authorize(t.Context(), request{method: "GET", path: listPath("acme")}.with(key))
	if err != nil || refusal.status != 0 {
		t.Fatal(refusal, err)
	}
	kept := doc{"lambda": context}
	a.clock.set(now.Add(time.Minute - time.Millisecond))
	want(t, a.invoke(t, everyOperation("acme")["getUsageMeteringConfigInfo"].with(key), kept), http.StatusOK)
	a.clock.set(now.Add(time.Minute))
	before := a.dump(t)
	for _, r := range everyOperation("acme") {
		got := a.invoke(t, r.with(key), kept)
		wantError(t, got, http.StatusUnauthorized, "expired at 2024-07-29T15:52:28.071Z")
		if len(got.operation) > 0 || got.headers.Get("WWW-Authenticate") == "" {
			t.Errorf("%v, %s", got.headers, shapes(got.operation))
		}
	}
	wantSame(t, before, a.dump(t))
}

// API Gateway caches the authorizer's response by the header, for all routes: the response depends
// on nothing else.
func TestAuthorizer_ReadsTheHeaderAlone(t *testing.T) {
	t.Parallel()
	a := newAPI(t, "lambda")
	key := a.newKey(t, "acme", auth.Read|auth.Config)
	expected := admitted{"organization": "acme", "keyId": keyPartition(key)[4:20], "scopes": "read,config"}
	for _, org := range []string{"acme", "other"} {
		for operation, r := range everyOperation(org) {
			context, refusal, err := a.way.(overLambda).authorize(t.Context(), r.with(key))
			if err != nil || refusal.status != 0 {
				t.Errorf("%s of %s: %v, %v", operation, org, refusal, err)
			}
			wantSame(t, expected, context)
		}
	}
	for _, source := range [][]string{nil, {}, {""}, {"", ""}, {"Key " + string(key), "Key " + string(key)}, {"Key " + string(key), ""}, {"", "Key " + string(key)}} {
		ctx, requests := tabletest.Record(t.Context())
		answer, err := a.way.(overLambda).authorizer(ctx, events.APIGatewayV2CustomAuthorizerV2Request{
			Version: "2.0", Type: "REQUEST", IdentitySource: source, Headers: map[string]string{"authorization": "Key " + string(key)},
		})
		if err != nil || answer.IsAuthorized || answer.Context != nil || len(requests()) > 0 {
			t.Errorf("identity source %q: %v, %v", source, answer, err)
		}
	}
	newer := a.newKey(t, "acme", auth.Read)
	a.setAttribute(t, newer, "scopes", "report,read,READ")
	context, _, err := a.way.(overLambda).authorize(t.Context(), request{method: "GET", path: "/"}.with(newer))
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, admitted{"organization": "acme", "keyId": keyPartition(newer)[4:20], "scopes": "read,report,READ"}, context)
	expiring := a.newKey(t, "a#b", auth.Admin, func(r *auth.Record) { r.ExpiryTime = now.Add(time.Hour) })
	context, _, err = a.way.(overLambda).authorize(t.Context(), request{method: "GET", path: "/"}.with(expiring))
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, admitted{"organization": "a#b", "keyId": keyPartition(expiring)[4:20], "scopes": "admin", "expiryTime": "2024-07-29T16:51:28.071Z"}, context)
}

// forgedHeaders are headers by which a client could claim to be another.
func forgedHeaders(t testing.TB, org string) map[string]string {
	authorizer := toJSON(t, doc{"lambda": admitted{"organization": org, "keyId": "0123456789abcdef", "scopes": "read,write,config,admin"}})
	context := `{"requestId":"forged","stage":"$default","authorizer":` + authorizer + `}`
	headers := map[string]string{"X-Apigateway-Event": `{"requestContext":` + context + `}`, "X-Apigateway-Context": context, "X-Amz-Apigateway-Context": context}
	for _, name := range []string{core.APIGwContextHeader, core.APIGwStageVarsHeader, core.ALBContextHeader} {
		headers[name] = context
	}
	for _, name := range []string{"Requestcontext", "Request-Context", "X-Amzn-Request-Context", "X-Amzn-Lambda-Context", "Lambda-Runtime-Client-Context", "X-Forwarded-Context"} {
		headers[name] = context
	}
	for _, name := range []string{"Authorizer", "X-Authorizer", "X-Amzn-Authorizer", "X-Amzn-Oidc-Data", "X-Amzn-Oidc-Identity"} {
		headers[name] = authorizer
	}
	for _, prefix := range []string{"", "X-", "X-Authorizer-", "X-Amzn-", "X-Amz-", "X-Amzn-Authorizer-", "Context-", "X-Marketmeter-"} {
		maps.Copy(headers, map[string]string{
			prefix + "Organization": org, prefix + "OrganizationID": org, prefix + "Org": org, prefix + "KeyId": "0123456789abcdef",
			prefix + "Scopes": "read,write,config,admin", prefix + "ExpiryTime": "2099-01-01T00:00:00.000Z",
		})
	}
	maps.Copy(headers, map[string]string{
		"X-Forwarded-User": org, "X-Remote-User": org, "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "X-Original-Url": listPath(org), "X-Rewrite-Url": listPath(org),
		"X-Forwarded-Prefix": "/org/" + org, "X-Http-Method-Override": "DELETE", "X-Api-Key": "mm_", "Cookie": "organization=" + org + "; scopes=admin", "Host-Organization": org,
		"X-Amz-Security-Token": "x", "X-Amzn-Principalid": org, "Proxy-Authorization": "Key x", "X-Authorization": "Key x",
	})
	return headers
}

// Only the key identifies a client: with forged headers, parameters and bodies, every response is
// the same as without them.
func TestPrincipal_IsNeverForged(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.giveAll(t, "acme")
		a.giveAll(t, "other")
		key, reading := a.newKey(t, "other", allScopes), a.newKey(t, "acme", auth.Read)
		forged := forgedHeaders(t, "acme")
		before := a.dump(t)
		for _, o := range operations() {
			r := o.example.of("acme")
			r.headers = maps.Clone(r.headers)
			if r.headers == nil {
				r.headers = map[string]string{}
			}
			maps.Copy(r.headers, forged)
			a.wantNoKey(t, r.authorized(""), 0)
			wantError(t, a.do(t, r.with(key)), http.StatusForbidden)
			if !o.admits("read") {
				wantError(t, a.do(t, r.with(reading)), http.StatusForbidden)
			}
			if _, direct := a.way.(overLambda); !direct {
				continue
			}
			// A function that is invoked without a context, but with all of these.
			for _, authorizer := range []doc{nil, {}, {"lambda": admitted{}}} {
				got := a.invoke(t, r.authorized("Key "+string(a.newKey(t, "acme", allScopes))), authorizer)
				if wantError(t, got, http.StatusUnauthorized); len(got.operation) > 0 {
					t.Errorf("%s asked the table %s", o.id, shapes(got.operation))
				}
			}
			// With the context of one organization and the headers of another, the context counts.
			wantError(t, a.invoke(t, r, lambdaContext("other")), http.StatusForbidden)
		}
		for name, value := range forged { // each by itself, too: one may mask another
			got := a.do(t, request{method: "GET", path: listPath("acme"), headers: map[string]string{name: value}}.with(key))
			if wantError(t, got, http.StatusForbidden); t.Failed() {
				t.Fatalf("%s: %s", name, value)
			}
		}
		for _, query := range []string{
			"organization=acme", "orgId=acme&organizationID=acme", "scopes=admin&keyId=0123456789abcdef", "Authorization=Key+x", "requestContext.authorizer.lambda.organization=acme",
		} {
			wantError(t, a.do(t, request{method: "GET", path: listPath("acme"), query: query}.with(key)), http.StatusForbidden)
			wantError(t, a.do(t, request{method: "DELETE", path: groupPath("acme", "g1"), query: query}.with(key)), http.StatusForbidden)
		}
		for _, body := range []string{
			`{"organization": "acme", "organizationID": "acme", "scopes": "admin"}`, `{"requestContext": {"authorizer": {"lambda": {"organization": "acme", "scopes": "admin"}}}}`,
			`[{"organizationID": "acme", "records": {"cpu": 1}}]`,
		} {
			wantError(t, a.do(t, request{method: "POST", path: validatePath("acme"), body: body}.with(key)), http.StatusForbidden)
			wantError(t, a.do(t, request{method: "PUT", path: configPath("acme"), body: body}.with(key)), http.StatusForbidden)
		}
		after := a.dump(t)
		maps.DeleteFunc(after, func(name string, _ doc) bool { return strings.Contains(name, "KEY#") })
		maps.DeleteFunc(before, func(name string, _ doc) bool { return strings.Contains(name, "KEY#") })
		wantSame(t, before, after)
		// Requests for the key's own organization succeed, whatever the forged values are.
		for _, r := range everyOperation("other") {
			headers := maps.Clone(forged)
			maps.Copy(headers, r.headers)
			r.headers = headers
			want(t, a.do(t, r.with(key)), http.StatusOK)
		}
	})
}

// The adapter can also pass the context of a request in headers. A context from such headers is not
// accepted either. (Through the adapter such a header can't even arrive whole, since the adapter
// cuts it at commas.)
func TestPrincipal_IsNeverReadFromTheAdaptersHeaders(t *testing.T) {
	t.Parallel()
	decoded := func(authorizer doc) (event events.APIGatewayV2HTTPRequest) {
		payload, err := eventOf(request{method: "GET", path: listPath("acme")}, authorizer)
		if err == nil {
			err = json.Unmarshal(payload, &event)
		}
		if err != nil {
			t.Fatal(err)
		}
		return event
	}
	r, err := new(core.RequestAccessorV2).ProxyEventToHTTPRequest(decoded(lambdaContext("acme")))
	if err != nil || !strings.Contains(r.Header.Get(core.APIGwContextHeader), `"organization":"acme"`) {
		t.Fatalf("%v, %v", r, err)
	}
	if identity, err := lambdahost.Principal(r); metering.CodeOf(err) != metering.Unauthenticated || identity != (auth.Principal{}) {
		t.Errorf("%+v, %v", identity, err)
	}
	// The context of the event counts, also beside these headers.
	for org, authorizer := range map[string]doc{"": nil, "other": lambdaContext("other")} {
		own, err := new(core.RequestAccessorV2).EventToRequestWithContext(t.Context(), decoded(authorizer))
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(own.Header, r.Header)
		if identity, err := lambdahost.Principal(own); string(identity.Organization) != org || (err == nil) != (org != "") {
			t.Errorf("%+v, %v", identity, err)
		}
	}
}

// The log names for each request the key that sent it, by its id and never the key itself. For a
// request without a valid key, it names nothing that the client claims.
func TestLog_NamesTheKey(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.giveAll(t, "acme")
		key, other := a.newKey(t, "acme", allScopes), a.newKey(t, "other", auth.Read)
		last := func() doc {
			lines := a.log.all(t)
			return lines[len(lines)-1]
		}
		for operation, r := range everyOperation("acme") {
			for _, c := range []struct {
				key    auth.Key
				org    string
				status int
			}{{key, "acme", 200}, {other, "other", 403}} {
				want(t, a.do(t, r.with(c.key)), c.status)
				line := last()
				if line["organization"] != c.org || line["keyId"] != keyPartition(c.key)[4:20] || line["operation"] != operation || line["status"] != float64(c.status) {
					t.Errorf("%v", line)
				}
			}
		}
		if a.isHTTP() {
			for _, authorization := range []string{"", "Key x", "Key " + string(auth.New())} {
				a.do(t, request{method: "GET", path: listPath("acme"), headers: forgedHeaders(t, "acme")}.authorized(authorization))
				line := last()
				if line["organization"] != "" || line["keyId"] != "" || line["status"] != 401.0 || line["level"] != "INFO" {
					t.Errorf("%v", line)
				}
			}
			return
		}
		a.do(t, request{method: "GET", path: listPath("acme")}.authorized("Key "+string(auth.New())))
		lines := a.keyLog.all(t)
		if line := lines[len(lines)-1]; line["msg"] != "refused" || line["requestId"] != "bqO8gjLvIAMEPDA=" || !strings.Contains(fmt.Sprint(line["error"]), "not known") {
			t.Errorf("%v", line)
		}
	})
}

// A change of the config logs the key, the change, the version before and after, and the time. A
// request that changes nothing, or fails, logs no such line.
func TestLog_HasEachChangeOfTheConfig(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		key := a.newKey(t, "acme", auth.Config)
		on, off := `{"partnerUsageMeteringConfigs": [{"partner": "AWS"}]}`, `{"partnerUsageMeteringConfigs": [{"partner": "AWS", "enableDimensionMapping": true}]}`
		for _, c := range []struct {
			method, body string
			headers      map[string]string
			status       int
			change       any
		}{
			{"PUT", on, nil, 200, doc{"item": "config", "fromVersion": 0.0, "toVersion": 1.0}},
			{"PUT", on, nil, 200, nil},
			{"PATCH", off, nil, 200, doc{"item": "config", "fromVersion": 1.0, "toVersion": 2.0}},
			{"PATCH", off, nil, 200, nil},
			{"PATCH", `{}`, nil, 200, nil},
			{"PATCH", on, nil, 200, nil}, // it names no value that differs
			{"PUT", on, map[string]string{"If-Match": etagOf(1, `{"partnerUsageMeteringConfigs":[{"partner":"AWS"}]}`)}, 412, nil},
			{"PUT", `{"partnerUsageMeteringConfigs": [{"partner": "NONE"}]}`, nil, 400, nil},
			{"PUT", `x`, nil, 400, nil},
			{"PUT", on, map[string]string{"Content-Type": "text/plain"}, 415, nil},
			{"PUT", on, map[string]string{"If-Match": etagOf(2, `{"partnerUsageMeteringConfigs":[{"enableDimensionMapping":true,"partner":"AWS"}]}`)}, 200, doc{"item": "config", "fromVersion": 2.0, "toVersion": 3.0}},
			{"GET", "", nil, 200, nil},
		} {
			before := len(a.log.all(t))
			r := request{method: c.method, path: configPath("acme"), body: c.body, headers: c.headers}
			want(t, a.do(t, r.with(key)), c.status)
			lines := a.log.all(t)[before:]
			if len(lines) != 1 {
				t.Fatalf("%d lines: %v", len(lines), lines)
			}
			wantSame(t, c.change, lines[0]["change"])
			at, _ := lines[0]["time"].(string)
			if lines[0]["keyId"] != keyPartition(key)[4:20] || lines[0]["organization"] != "acme" || parseTime(t, at).IsZero() {
				t.Errorf("%v", lines[0])
			}
		}
		// Neither does a change that its key does not allow.
		want(t, a.do(t, request{method: "PUT", path: configPath("acme"), body: off}.with(a.newKey(t, "acme", auth.Read))), http.StatusForbidden)
		lines := a.log.all(t)
		wantSame(t, any(nil), lines[len(lines)-1]["change"])
	})
}

// A delete logs which group it was; one that fails logs no such line.
func TestLog_HasEachDelete(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"))
		for i, status := range []int{http.StatusOK, http.StatusBadRequest} {
			want(t, a.delete(t, "acme", "g1", ""), status)
			lines := a.log.all(t)
			wantSame(t, []any{doc{"item": "group", "id": "g1"}, nil}[i], lines[len(lines)-1]["change"])
		}
	})
}

// A key that a client puts in the wrong part of a request appears neither in the log nor in the
// response.
func TestLog_RedactsKeysInOtherPlaces(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		misplaced, key := string(auth.New()), a.newKey(t, "acme", allScopes)
		for _, r := range []request{
			{method: "GET", path: listPath("acme"), query: "status=" + misplaced},
			{method: "GET", path: listPath("acme"), query: misplaced + "=1"},
			{method: "GET", path: listPath(misplaced)},
			{method: "DELETE", path: groupPath("acme", misplaced)},
			{method: "GET", path: "/" + misplaced},
			{method: "PUT", path: configPath("acme"), body: `{"` + misplaced + `": 1}`},
			{method: "PUT", path: configPath("acme"), body: `{}`, headers: map[string]string{"Content-Type": misplaced}},
		} {
			got := a.do(t, r.with(key))
			message := wantError(t, got, got.status, "mm_...")
			lines := a.log.all(t)
			logged, _ := lines[len(lines)-1]["error"].(string)
			if strings.Contains(message, misplaced) || strings.Contains(logged, misplaced) || !strings.Contains(logged, "mm_...") {
				t.Errorf("%s %s: answered %s, logged %s", r.method, r.path, message, logged)
			}
		}
	})
}
