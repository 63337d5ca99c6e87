package sandbox_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/sandbox"
)

const azureBase = "http://127.0.0.1:8090/azure"

// azureToken requests a token with the form after the changes.
func (b *box) azureToken(changes ...string) answer {
	b.t.Helper()
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {client}, "client_secret": {"hush"}, "scope": {"20e940b3-4c77-4b0b-9a53-9e16a1b010a7/.default"},
	}
	at := tenant
	for i := 0; i < len(changes); i += 2 {
		if changes[i] == "tenant" {
			at = changes[i+1]
			continue
		}
		form.Set(changes[i], changes[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, azureBase+"/"+at+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a := b.send(r)
	if guid(at) {
		azureDescription().check(b.t, r, form.Encode(), a)
	}
	return a
}

func guid(text string) bool { return len(text) == 36 }

// as switches the box to another application.
func (b *box) as(id, secret string) {
	b.t.Helper()
	a := b.azureToken("client_id", id, "client_secret", secret)
	wantStatus(b.t, a, 200)
	b.azure = a.get("access_token").(string)
}

// put stores the test's catalog after the changes.
func (b *box) put(changes ...string) {
	b.t.Helper()
	if err := b.PutCatalog(catalog(b.t, changes...)); err != nil {
		b.t.Fatal(err)
	}
}

// azureCall calls the metering service and checks request and response against azure.yaml.
func (b *box) azureCall(method, path, body string, headers ...string) answer {
	b.t.Helper()
	r := b.azureRequest(method, path, body, headers...)
	a := b.send(r)
	azureDescription().check(b.t, r, body, a)
	return a
}

func (b *box) azureRequest(method, path, body string, headers ...string) *http.Request {
	b.t.Helper()
	if b.azure == "" {
		b.as(client, "hush")
	}
	if !strings.Contains(path, "api-version") {
		sign := "?"
		if strings.Contains(path, "?") {
			sign = "&"
		}
		path += sign + "api-version=2018-08-31"
	}
	r := httptest.NewRequest(method, azureBase+"/api/"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+b.azure)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// event is a usage event at the start of noon's hour, after the changes.
func event(quantity string, changes ...string) string {
	return record([]string{
		"resourceId", `"` + resource + `"`, "quantity", quantity, "dimension", `"tokens"`,
		"effectiveStartTime", `"2026-11-18T12:00:00Z"`, "planId", `"silver"`,
	}, changes)
}

func (b *box) batch(events ...string) answer {
	b.t.Helper()
	return b.azureCall(http.MethodPost, "batchUsageEvent", `{"request":[`+strings.Join(events, ",")+`]}`)
}

// status returns the status of the only event of a batch.
func (b *box) status(event string) any {
	b.t.Helper()
	a := b.batch(event)
	wantStatus(b.t, a, 200)
	want(b.t, "count", a.get("count"), 1)
	return a.get("result", 0, "status")
}

func TestAzure_BatchIsAccepted(t *testing.T) {
	b := fresh(t)
	a := b.batch(event("5.5"))
	wantStatus(t, a, 200)
	for name, value := range map[string]any{
		"status": "Accepted", "quantity": 5.5, "dimension": "tokens", "planId": "silver", "resourceId": resource,
		"effectiveStartTime": "2026-11-18T12:00:00Z", "messageTime": "2026-11-18T12:30:00.0000000Z",
	} {
		want(t, name, a.get("result", 0, name), value)
	}
	want(t, "quantities", b.quantities(), "[5.5]")
}

func TestAzure_AtMost25Events(t *testing.T) {
	b := fresh(t)
	var events []string
	for i := range 26 {
		dimension := "tokens"
		if i > 20 {
			dimension = "email"
		}
		events = append(events, event("1", "dimension", `"`+dimension+`"`, "effectiveStartTime", `"`+noon.Add(-time.Duration(i%21)*time.Hour).Format("2006-01-02T15:04:05")+`"`))
	}
	wantStatus(t, b.batch(events...), 400)
	want(t, "records", len(b.quantities()), 0)
	a := b.batch(events[:25]...)
	wantStatus(t, a, 200)
	want(t, "count", a.get("count"), 25)
	want(t, "records", len(b.quantities()), 25)
	wantStatus(t, b.batch(), 400)
}

func TestAzure_WindowIsFromNowBack24Hours(t *testing.T) {
	for at, status := range map[string]string{
		"2026-11-18T12:30:00Z": "Accepted", "2026-11-17T12:30:00": "Accepted", "2026-11-17T12:29:59.99Z": "Expired", "2026-11-18T12:30:01Z": "BadArgument",
	} {
		b := fresh(t)
		want(t, at, b.status(event("1", "effectiveStartTime", `"`+at+`"`)), status)
	}
}

func TestAzure_AfterCancellationOnlyTimeBefore(t *testing.T) {
	b := fresh(t) // cancelled at 10:00
	gone := []string{"resourceId", `"cccccccc-0000-4000-8000-000000000004"`}
	want(t, "after", b.status(event("1", append(gone, "effectiveStartTime", `"2026-11-18T10:00:00Z"`)...)), "ResourceNotActive")
	want(t, "before", b.status(event("1", append(gone, "effectiveStartTime", `"2026-11-18T09:59:59Z"`)...)), "Accepted")
	b.at(noon.Add(22 * time.Hour)) // the limit of 24 hours also applies here
	b.as(client, "hush")
	want(t, "a day later", b.status(event("1", append(gone, "effectiveStartTime", `"2026-11-18T08:00:00Z"`)...)), "Expired")
}

func TestAzure_QuantityIsADoubleAboveZero(t *testing.T) {
	for quantity, stored := range map[string]string{
		"0.5": "0.5", "1e3": "1000", "9007199254740993": "9007199254740992", // a double has no more digits
		"0.1": "0.1", "123456789012345": "123456789012345",
	} {
		b := fresh(t)
		want(t, quantity, b.status(event(quantity)), "Accepted")
		want(t, quantity, b.quantities(), "["+stored+"]")
	}
	b := fresh(t)
	for _, quantity := range []string{"0", "-1", "-0.0", "1e-400"} { // zero usage is refused
		want(t, quantity, b.status(event(quantity)), "InvalidQuantity")
	}
	want(t, "records", len(b.quantities()), 0)
	// A quantity that is no double fails its event alone. azure.yaml does not allow it.
	for i, quantity := range []string{`"5"`, "1e309", "-1e309", "1e400", "true", "{}", `"x"`, "[]"} {
		hour := `"` + noon.Add(-time.Duration(i)*time.Hour).Format("2006-01-02T15:04:05") + `"`
		a := b.send(b.azureRequest(http.MethodPost, "batchUsageEvent", `{"request":[`+event(quantity)+`,`+event("1", "effectiveStartTime", hour, "dimension", `"email"`)+`]}`))
		wantStatus(t, a, 200)
		found := map[any]any{}
		for i := range 2 {
			found[a.get("result", i, "dimension")] = a.get("result", i, "status")
		}
		want(t, quantity, found, map[any]any{"tokens": "BadArgument", "email": "Accepted"})
		want(t, "records", len(b.quantities()), i+1)
		a = b.send(b.azureRequest(http.MethodPost, "usageEvent", event(quantity)))
		wantStatus(t, a, 400)
		want(t, quantity, a.get("details", 0, "code"), "BadArgument")
	}
}

func TestAzure_IdentityIsResourceDimensionAndHour(t *testing.T) {
	b := fresh(t)
	want(t, "first", b.status(event("1")), "Accepted")
	want(t, "later in the hour", b.status(event("2", "effectiveStartTime", `"2026-11-18T12:29:59"`)), "Duplicate")
	want(t, "in capitals", b.status(event("2", "resourceId", `"`+strings.ToUpper(resource)+`"`)), "Duplicate")
	want(t, "another hour", b.status(event("2", "effectiveStartTime", `"2026-11-18T11:59:59"`)), "Accepted")
	want(t, "another dimension", b.status(event("2", "dimension", `"email"`)), "Accepted")
	// The plan is not part of the identity: after a change of plan the hour is still a duplicate.
	c := catalog(t, `"buyer": "contoso", "offerId": "offer", "planId": "silver"`, `"buyer": "contoso", "offerId": "offer", "planId": "gold"`)
	if err := b.PutCatalog(c); err != nil {
		t.Fatal(err)
	}
	want(t, "another plan", b.status(event("2", "planId", `"gold"`)), "Duplicate")
}

func TestAzure_DuplicateCarriesTheAcceptedEvent(t *testing.T) {
	b := fresh(t)
	first := b.batch(event("1.5"))
	b.at(noon.Add(10 * time.Minute))
	a := b.batch(event("2", "effectiveStartTime", `"2026-11-18T12:20:00Z"`))
	want(t, "status", a.get("result", 0, "status"), "Duplicate")
	want(t, "code", a.get("result", 0, "error", "code"), "Conflict")
	want(t, "outer time", a.get("result", 0, "messageTime"), "0001-01-01T00:00:00")
	accepted := func(name string) any { return a.get("result", 0, "error", "additionalInfo", "acceptedMessage", name) }
	want(t, "id", accepted("usageEventId"), first.get("result", 0, "usageEventId"))
	want(t, "quantity", accepted("quantity"), 1.5)
	want(t, "messageTime", accepted("messageTime"), "2026-11-18T12:30:00.0000000Z")
	want(t, "effectiveStartTime", accepted("effectiveStartTime"), "2026-11-18T12:00:00Z")
	want(t, "quantities", b.quantities(), "[1.5]")
	// The first one wins within one batch too.
	want(t, "twice in a batch", b.batch(event("1", "dimension", `"email"`), event("2", "dimension", `"email"`)).get("count"), 2)
	want(t, "quantities", b.quantities(), "[1.5 1]")
}

// An event that was accepted stays accepted, whatever has changed since.
func TestAzure_AcceptedEventStaysAccepted(t *testing.T) {
	bought := `"buyer": "contoso", "offerId": "offer", "planId": "silver", "state": "Subscribed"`
	plan := `"offerId": "offer", "planId": `
	for what, change := range map[string]func(*box){
		"suspended": func(b *box) { b.put(bought, plan+`"silver", "state": "Suspended"`) },
		"unsubscribed": func(b *box) {
			b.put(bought, plan+`"silver", "state": "Unsubscribed", "cancelled": "2026-11-18T11:00:00Z"`)
		},
		"another plan":        func(b *box) { b.put(bought, plan+`"gold", "state": "Subscribed"`) },
		"dimension":           func(b *box) { b.put(`{"key": "tokens", "price": "0.02"}, `, "") },
		"expired":             func(b *box) { b.at(noon.Add(25 * time.Hour)) },
		"the clock goes back": func(b *box) { b.at(noon.Add(-2 * time.Hour)) },
	} {
		b := fresh(t)
		id := b.batch(event("1.5")).get("result", 0, "usageEventId")
		change(b)
		b.as(client, "hush")
		a := b.batch(event("1.5"))
		want(t, what, a.get("result", 0, "status"), "Duplicate")
		want(t, what, a.get("result", 0, "error", "additionalInfo", "acceptedMessage", "usageEventId"), id)
		a = b.azureCall(http.MethodPost, "usageEvent", event("2"))
		wantStatus(t, a, 409)
		want(t, what, a.get("additionalInfo", "acceptedMessage", "quantity"), 1.5)
		if status := b.status(event("1", "effectiveStartTime", `"2026-11-18T11:30:00Z"`)); status == "Accepted" || status == "Duplicate" {
			t.Errorf("%s: a new event is %v", what, status)
		}
		want(t, "quantities", b.quantities(), "[1.5]")
	}
}

func TestAzure_OneBadEventFailsAlone(t *testing.T) {
	for _, c := range []struct{ event, status string }{
		{event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000099"`), "ResourceNotFound"},
		{event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000005"`, "planId", `"p"`), "ResourceNotAuthorized"},
		{event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000002"`), "ResourceNotActive"},
		{event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000003"`), "ResourceNotActive"},
		{event("1", "dimension", `"tokenz"`), "InvalidDimension"},
		{event("0"), "InvalidQuantity"},
		{event("1", "effectiveStartTime", `"2026-11-16T12:00:00Z"`), "Expired"},
		{event("1", "planId", `"gold"`), "BadArgument"},
	} {
		b := fresh(t)
		a := b.batch(c.event, event("1"))
		wantStatus(t, a, 200)
		found := map[any]bool{}
		for i := range 2 {
			found[a.get("result", i, "status")] = true
		}
		want(t, c.event, found, map[any]bool{c.status: true, "Accepted": true})
		want(t, "quantities", b.quantities(), "[1]")
	}
}

// A missing or malformed member is the event's own BadArgument. azure.yaml does not allow such
// requests, so only the responses are checked against it.
func TestAzure_BadArgumentIsPerEvent(t *testing.T) {
	for what, e := range map[string]string{
		"no GUID": event("1", "resourceId", `"not-a-guid"`), "no resource": event("1", "resourceId", ""),
		"two resources": event("1", "resourceUri", `"`+managedApp+`"`), "no quantity": event(""), "no dimension": event("1", "dimension", ""),
		"null": event("1", "dimension", "null"), "no plan": event("1", "planId", ""), "no time": event("1", "effectiveStartTime", ""),
		"comma": event("1", "effectiveStartTime", `"2026-11-18T12:00:00,5Z"`), "hour of one digit": event("1", "effectiveStartTime", `"2026-11-18T1:00:00Z"`),
		"no T": event("1", "effectiveStartTime", `"2026-11-18 12:00:00"`), "two Z": event("1", "effectiveStartTime", `"2026-11-18T12:00:00ZZ"`),
		"only a date": event("1", "effectiveStartTime", `"2026-11-18"`), "year 0": event("1", "effectiveStartTime", `"0000-11-18T12:00:00Z"`),
		"no such time": event("1", "effectiveStartTime", `"2026-11-31T12:00:00Z"`), "not UTC": event("1", "effectiveStartTime", `"2026-11-18T12:00:00+01:00"`),
		"no URI": event("1", "resourceId", "", "resourceUri", `"app"`),
	} {
		b := fresh(t)
		body := `{"request":[` + e + `]}`
		a := b.send(b.azureRequest(http.MethodPost, "batchUsageEvent", body))
		wantStatus(t, a, 200)
		want(t, what, a.get("result", 0, "status"), "BadArgument")
		a = b.azureCall(http.MethodPost, "usageEvent", e)
		wantStatus(t, a, 400)
		want(t, what, a.get("details", 0, "code"), "BadArgument")
	}
}

func TestAzure_MalformedRequestsAre400(t *testing.T) {
	b := fresh(t)
	for _, body := range []string{
		"", "{", "[]", "{}", `{"request":{}}`, `{"request":[1]}`, `{"request":[],"request":[]}`, `{"requests":[]}`, `{"request":[{"resourceID":"x"}]}`,
		`{"request":[{"resourceId":5}]}`, `{"request":[` + event("1") + `]} x`, "{\"request\":[\"\xff\"]}",
	} {
		wantStatus(t, b.azureCall(http.MethodPost, "batchUsageEvent", body), 400)
		if body != "{}" {
			wantStatus(t, b.azureCall(http.MethodPost, "usageEvent", body), 400)
		}
	}
	wantStatus(t, b.azureCall(http.MethodPost, "batchUsageEvent", `{"request":[`+strings.Repeat(" ", 3<<20)+`]}`), 400)
}

func TestAzure_SingleEvent(t *testing.T) {
	b := fresh(t)
	single := func(event string) answer { return b.azureCall(http.MethodPost, "usageEvent", event) }
	a := single(event("5"))
	wantStatus(t, a, 200)
	want(t, "status", a.get("status"), "Accepted")
	a = single(event("6"))
	wantStatus(t, a, 409)
	want(t, "code", a.get("code"), "Conflict")
	want(t, "accepted quantity", a.get("additionalInfo", "acceptedMessage", "quantity"), 5)
	for e, code := range map[string]string{
		event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000099"`): "ResourceNotFound",
		event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000002"`): "ResourceNotActive",
		event("1", "effectiveStartTime", `"2026-11-16T12:00:00Z"`):         "Expired",
		event("1", "dimension", `"tokenz"`):                                "InvalidDimension",
		event("-1"):                                                        "InvalidQuantity",
	} {
		a := single(e)
		wantStatus(t, a, 400)
		want(t, e, a.get("code"), code)
	}
	wantStatus(t, single(event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000005"`, "planId", `"p"`)), 403)
	want(t, "quantities", b.quantities(), "[5]")
}

func TestAzure_ManagedApplicationHasAResourceUri(t *testing.T) {
	b := fresh(t)
	app := []string{"resourceId", "", "resourceUri", `"` + managedApp + `"`, "planId", `"gold"`}
	want(t, "status", b.status(event("1", app...)), "Accepted")
	app[3] = strings.ToUpper(app[3])
	app[3] = strings.Replace(app[3], "/SUBSCRIPTIONS/", "/subscriptions/", 1)
	want(t, "in capitals", b.status(event("2", app...)), "Duplicate")
	bill, _ := b.Bill("")
	want(t, "price of the plan", bill.Lines[0].Price, "0.01")
}

func TestAzure_ApplicationIsTheOffers(t *testing.T) {
	b := fresh(t)
	b.as("bbbbbbbb-0000-4000-8000-000000000003", "hush-3") // has no offer
	wantStatus(t, b.batch(event("1")), 403)
	b.as(client, "hush")
	// A resource of another publisher makes the whole request fail.
	wantStatus(t, b.batch(event("1"), event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000006"`, "planId", `"p"`)), 403)
	want(t, "records", len(b.quantities()), 0)
	b.as("bbbbbbbb-0000-4000-8000-000000000002", "hush-2")
	// An offer without a publisher in the catalog has a publisher of its own.
	b.put(`"publisher": "us", `, "", `"publisher": "them", `, "")
	b.as(client, "hush")
	for _, resource := range []string{"cccccccc-0000-4000-8000-000000000005", "cccccccc-0000-4000-8000-000000000006"} {
		foreign := event("1", "resourceId", `"`+resource+`"`, "planId", `"p"`)
		wantStatus(t, b.batch(event("1"), foreign), 403)
		wantStatus(t, b.azureCall(http.MethodPost, "usageEvent", foreign), 403)
	}
	want(t, "records", len(b.quantities()), 0)
	b.as("bbbbbbbb-0000-4000-8000-000000000002", "hush-2")
	want(t, "its own", b.status(event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000005"`, "planId", `"p"`)), "Accepted")
}

func TestAzure_TokenEndpoint(t *testing.T) {
	b := fresh(t)
	a := b.azureToken()
	wantStatus(t, a, 200)
	want(t, "expires_in", a.get("expires_in"), 3599)
	// expires_in may be a string.
	a = b.azureToken("client_id", "bbbbbbbb-0000-4000-8000-000000000002", "client_secret", "hush-2")
	if _, ok := a.get("expires_in").(string); !ok {
		t.Fatalf("expires_in of %s is no string", a.raw)
	}
	for _, c := range []struct {
		change []string
		status int
		err    string
	}{
		{[]string{"client_secret", "wrong"}, 401, "invalid_client"},
		{[]string{"client_secret", ""}, 401, "invalid_client"},
		{[]string{"client_id", "bbbbbbbb-0000-4000-8000-000000000009"}, 400, "unauthorized_client"},
		{[]string{"client_id", ""}, 400, "invalid_request"},
		{[]string{"scope", "https://graph.microsoft.com/.default"}, 400, "invalid_scope"},
		{[]string{"grant_type", "password"}, 400, "unsupported_grant_type"},
		{[]string{"tenant", "aaaaaaaa-0000-4000-8000-000000000009"}, 400, "invalid_request"},
	} {
		a := b.azureToken(c.change...)
		wantStatus(t, a, c.status)
		want(t, fmt.Sprint(c.change), a.get("error"), c.err)
	}
	r := httptest.NewRequest(http.MethodPost, azureBase+"/"+tenant+"/oauth2/v2.0/token", strings.NewReader(`{"grant_type":"client_credentials"}`))
	r.Header.Set("Content-Type", "application/json")
	wantStatus(t, b.send(r), 400)
	// The credentials may be in the header, as OAuth 2.0 allows.
	r = httptest.NewRequest(http.MethodPost, azureBase+"/"+tenant+"/oauth2/v2.0/token",
		strings.NewReader("grant_type=client_credentials&scope=20e940b3-4c77-4b0b-9a53-9e16a1b010a7%2F.default"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(client, "hush")
	wantStatus(t, b.send(r), 200)
}

func TestAzure_TokenExpires(t *testing.T) {
	b := fresh(t)
	wantStatus(t, b.batch(event("1")), 200)
	b.at(noon.Add(time.Hour))
	wantStatus(t, b.batch(event("1")), 403)
	b.as(client, "hush")
	wantStatus(t, b.batch(event("1")), 200)
	for _, authorization := range []string{"", "Bearer", "Bearer nonsense", "Basic eDp5"} {
		wantStatus(t, b.send(b.azureRequest(http.MethodPost, "batchUsageEvent", "{}", "Authorization", authorization)), 403)
	}
	// A token of another marketplace is not valid here.
	b.googleLogin()
	wantStatus(t, b.send(b.azureRequest(http.MethodPost, "batchUsageEvent", "{}", "Authorization", "Bearer "+b.google)), 403)
}

func TestAzure_RequestIdsComeBack(t *testing.T) {
	b := fresh(t)
	id := "eeeeeeee-0000-4000-8000-000000000001"
	a := b.azureCall(http.MethodPost, "batchUsageEvent", `{"request":[`+event("1")+`]}`, "x-ms-requestid", id, "x-ms-correlationid", strings.ToUpper(id))
	want(t, "x-ms-requestid", a.header.Get("x-ms-requestid"), id)
	want(t, "x-ms-correlationid", a.header.Get("x-ms-correlationid"), strings.ToUpper(id))
	made := b.batch(event("1")).header.Get("x-ms-requestid")
	if !guid(made) {
		t.Fatalf("x-ms-requestid %q was made", made)
	}
	for _, name := range []string{"x-ms-requestid", "x-ms-correlationid"} {
		wantStatus(t, b.send(b.azureRequest(http.MethodPost, "batchUsageEvent", "{}", name, "not-a-guid")), 400)
	}
}

func TestAzure_ApiVersionIsRequired(t *testing.T) {
	b := fresh(t)
	for _, path := range []string{"batchUsageEvent?api-version=2019-01-01", "usageEvent?api-version=", "batchUsageEvent?api-version=2018-08-31&x=1"} {
		wantStatus(t, b.azureCall(http.MethodPost, path, `{"request":[`+event("1")+`]}`), 400)
	}
	wantStatus(t, b.send(b.azureRequest(http.MethodPost, "batchUsageEvent", "{}", "Content-Type", "text/plain")), 415)
	wantStatus(t, b.send(b.azureRequest(http.MethodPost, "nonsense", "{}")), 404)
	wantStatus(t, b.send(b.azureRequest(http.MethodGet, "batchUsageEvent", "")), 404)
}

func TestAzure_ResultIsUnordered(t *testing.T) {
	order := func(seed uint64) string {
		b := open(t, sandbox.Options{Seed: seed})
		b.at(noon)
		var events []string
		for i := range 20 {
			events = append(events, event(fmt.Sprint(i+1), "effectiveStartTime", `"`+noon.Add(-time.Duration(i)*time.Hour).Format("2006-01-02T15:04:05")+`"`))
		}
		a := b.batch(events...)
		var quantities []any
		for i := range events {
			quantities = append(quantities, a.get("result", i, "quantity"))
		}
		return fmt.Sprint(quantities)
	}
	if order(1) == "[1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20]" || order(1) == order(2) {
		t.Fatal("the results come in the order of the events")
	}
	want(t, "the same seed", order(1), order(1))
}

func TestAzure_UsageEventsAreDailySums(t *testing.T) {
	b := fresh(t)
	b.batch(event("1.5"), event("2", "effectiveStartTime", `"2026-11-18T11:00:00"`), event("4", "effectiveStartTime", `"2026-11-17T23:00:00"`), event("8", "dimension", `"email"`))
	list := func(query string) answer { return b.azureCall(http.MethodGet, "usageEvents?"+query, "") }
	a := list("usageStartDate=2026-11-18")
	wantStatus(t, a, 200)
	want(t, "days", len(a.body.([]any)), 2)
	for name, value := range map[string]any{
		"usageDate": "2026-11-18T00:00:00Z", "usageResourceId": resource, "dimension": "tokens", "planId": "silver", "offerId": "offer", "reconStatus": "Submitted",
		"submittedQuantity": 3.5, "processedQuantity": 0, "submittedCount": 2, "azureSubscriptionId": "sub-1",
	} {
		want(t, name, a.get(1, name), value)
	}
	for query, days := range map[string]int{
		"usageStartDate=2026-11-17T15:00": 3, "usageStartDate=2026-11-17&UsageEndDate=2026-11-17": 1, "usageStartDate=2026-11-19": 0,
		"usageStartDate=2026-11-17&dimension=email": 1, "usageStartDate=2026-11-17&planId=gold": 0, "usageStartDate=2026-11-17&offerId=offer": 3,
		"usageStartDate=2026-11-17&azureSubscriptionId=sub-2": 0, "usageStartDate=2026-11-17&reconStatus=Accepted": 0,
	} {
		want(t, query, len(list(query).body.([]any)), days)
	}
	for _, query := range []string{"", "usageStartDate=yesterday", "usageStartDate=2026-11-17T5:00", "usageStartDate=2026-11-17T15:00:00,5", "usageStartDate=2026-11-17T", "usageStartDate=2026-11-17&UsageEndDate=x", "usageStartDate=2026-11-17&x=y"} {
		wantStatus(t, list(query), 400)
	}
	// A sum may exceed the largest double.
	b.batch(event("1.7e308", "effectiveStartTime", `"2026-11-18T02:00:00"`), event("1.7e308", "effectiveStartTime", `"2026-11-18T01:00:00"`))
	want(t, "a huge sum", list("usageStartDate=2026-11-18&dimension=tokens").get(0, "submittedQuantity"), 1.7976931348623157e308)
	// Two days later a day is Accepted; the catalog can set another status.
	b.at(noon.Add(36 * time.Hour))
	b.as(client, "hush")
	want(t, "later", list("usageStartDate=2026-11-18&dimension=email").get(0, "reconStatus"), "Accepted")
	c := catalog(t, `"subscriptions": [`, `"reconciliations": [{"date": "2026-11-18", "resource": "`+resource+
		`", "dimension": "email", "reconStatus": "Mismatch", "processedQuantity": "7.5"}], "subscriptions": [`)
	if err := b.PutCatalog(c); err != nil {
		t.Fatal(err)
	}
	want(t, "mismatch", list("usageStartDate=2026-11-18&dimension=email").get(0, "processedQuantity"), 7.5)
	// Another application sees none of it.
	b.as("bbbbbbbb-0000-4000-8000-000000000002", "hush-2")
	want(t, "another application", len(list("usageStartDate=2026-11-17").body.([]any)), 0)
}

func TestAzure_FaultsHaveItsForm(t *testing.T) {
	b := fresh(t)
	b.fault(sandbox.Fault{Fault: sandbox.Throttled})
	wantStatus(t, b.batch(event("1")), 429)
	b.fault(sandbox.Fault{Fault: sandbox.ServerError})
	wantStatus(t, b.batch(event("1")), 500)
	b.fault(sandbox.Fault{Fault: sandbox.Unprocessed, Records: []int{0}})
	want(t, "status", b.status(event("1")), "Error")
	b.fault(sandbox.Fault{Fault: sandbox.Unprocessed})
	wantStatus(t, b.azureCall(http.MethodPost, "usageEvent", event("1")), 500)
	want(t, "records", len(b.quantities()), 0)
	want(t, "sent again", b.status(event("1")), "Accepted")
	b.fault(sandbox.Fault{Fault: sandbox.Partial, Records: []int{0}})
	a := b.batch(event("1", "dimension", `"email"`), event("1"))
	want(t, "count", a.get("count"), 1)
	want(t, "what is left", a.get("result", 0, "status"), "Duplicate")
	want(t, "quantities", b.quantities(), "[1 1]")
}
