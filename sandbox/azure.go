package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The Azure marketplace metering service, 2018-08-31, and the token endpoint of Microsoft Entra.
// Source: "Marketplace metering service APIs" and its FAQ. azure.yaml describes the API.

const (
	opAzureToken      = "token"
	opUsageEvent      = "usageEvent"
	opBatchUsageEvent = "batchUsageEvent"
	opUsageEvents     = "usageEvents"

	azureVersion   = "2018-08-31"
	azureMaxEvents = 25
	azureWindow    = 24 * time.Hour
	azureScope     = "20e940b3-4c77-4b0b-9a53-9e16a1b010a7/.default"
	// azureLifetime is the lifetime of a token. Entra reports it a second shorter.
	azureLifetime = time.Hour
)

// The statuses of events.
const (
	azAccepted      = "Accepted"
	azExpired       = "Expired"
	azDuplicate     = "Duplicate"
	azError         = "Error"
	azNotFound      = "ResourceNotFound"
	azNotAuthorized = "ResourceNotAuthorized"
	azNotActive     = "ResourceNotActive"
	azDimension     = "InvalidDimension"
	azQuantity      = "InvalidQuantity"
	azBadArgument   = "BadArgument"
)

type azureProtocol struct{ *call }

func (p azureProtocol) operation() string {
	switch {
	case p.Method == http.MethodPost && p.path == "/api/usageEvent":
		return opUsageEvent
	case p.Method == http.MethodPost && p.path == "/api/batchUsageEvent":
		return opBatchUsageEvent
	case p.Method == http.MethodGet && p.path == "/api/usageEvents":
		return opUsageEvents
	case p.Method == http.MethodPost && strings.HasSuffix(p.path, "/oauth2/v2.0/token") && strings.Count(p.path, "/") == 4:
		return opAzureToken
	}
	return ""
}

// throttle allows all requests: Azure documents no rate.
func (p azureProtocol) throttle() (response, bool) { return response{}, false }

func (p azureProtocol) respond() response {
	var r response
	switch p.call.operation {
	case opAzureToken:
		return p.token()
	case opUsageEvent, opBatchUsageEvent, opUsageEvents:
		r = p.api()
	default:
		r = p.refuseAll(http.StatusNotFound, "NotFound", "there is no such operation")
	}
	return p.withIDs(r)
}

// withIDs returns the response with both ids, from the request or generated.
func (p azureProtocol) withIDs(r response) response {
	for _, name := range []string{"X-Ms-Requestid", "X-Ms-Correlationid"} {
		id := p.Header.Get(name)
		if id == "" {
			id = p.uuid(name, 0)
		}
		r.header.Set(name, id)
	}
	return r
}

func (p azureProtocol) failure(h *hit) response {
	status, code, message := cmp.Or(h.Status, http.StatusInternalServerError), "InternalServerError", "An error has occurred."
	if h.is(Throttled) {
		status, code, message = http.StatusTooManyRequests, "TooManyRequests", "Too many requests."
	}
	r := jsonResponse(status, "application/json; charset=utf-8", azureError{Code: code, Message: message})
	if h.is(Throttled) {
		r.header.Set("Retry-After", "1")
	}
	return p.withIDs(r)
}

// An azureError is the body of an error response.
type azureError struct {
	AdditionalInfo *azureAdditionalInfo `json:"additionalInfo,omitempty"`
	Message        string               `json:"message"`
	Target         string               `json:"target,omitempty"`
	Details        []azureError         `json:"details,omitempty"`
	Code           string               `json:"code"`
}

type azureAdditionalInfo struct {
	AcceptedMessage azureMessage `json:"acceptedMessage"`
}

// An azureMessage is an event with its result.
type azureMessage struct {
	UsageEventID       string          `json:"usageEventId,omitempty"`
	Status             string          `json:"status"`
	MessageTime        string          `json:"messageTime"`
	Error              *azureError     `json:"error,omitempty"`
	ResourceID         string          `json:"resourceId,omitempty"`
	ResourceURI        string          `json:"resourceUri,omitempty"`
	Quantity           json.RawMessage `json:"quantity,omitempty"`
	Dimension          string          `json:"dimension,omitempty"`
	EffectiveStartTime string          `json:"effectiveStartTime,omitempty"`
	PlanID             string          `json:"planId,omitempty"`
}

// refuseAll refuses the whole request.
func (p azureProtocol) refuseAll(status int, code, message string) response {
	p.refuse(Refused, code, message)
	return jsonResponse(status, "application/json; charset=utf-8", azureError{Code: code, Message: message})
}

// badRequest is the response to a request that cannot be read.
func (p azureProtocol) badRequest(target, message string) response {
	p.refuse(Refused, azBadArgument, message)
	return jsonResponse(http.StatusBadRequest, "application/json; charset=utf-8", azureError{
		Code: azBadArgument, Message: "One or more errors have occurred.", Target: target,
		Details: []azureError{{Code: azBadArgument, Message: message}},
	})
}

// token is the token endpoint. The client's credentials are in the body or in Authorization: Basic.
func (p azureProtocol) token() response {
	tenant := strings.Split(p.path, "/")[1]
	fail := func(status int, code string, number int, message string) response {
		description := fmt.Sprintf("AADSTS%d: %s", number, message)
		p.refuse(Refused, code, description)
		return jsonResponse(status, "application/json; charset=utf-8", map[string]any{
			"error": code, "error_description": description, "error_codes": []int{number},
			"timestamp": p.now.Format("2006-01-02 15:04:05Z"), "trace_id": p.uuid("trace", 0), "correlation_id": p.uuid("correlation", 0),
		})
	}
	form, err := p.form()
	if err != nil {
		return fail(http.StatusBadRequest, "invalid_request", 900144, err.Error())
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, password, ok := p.BasicAuth(); ok {
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(password)
	}
	tenantKnown := slices.ContainsFunc(p.state.catalog.Azure.Applications, func(a AzureApplication) bool { return strings.EqualFold(a.TenantID, tenant) })
	application := p.state.catalog.applications[strings.ToLower(id)]
	switch {
	case form.Get("grant_type") != "client_credentials":
		return fail(http.StatusBadRequest, "unsupported_grant_type", 70003, "grant_type must be client_credentials")
	case id == "":
		return fail(http.StatusBadRequest, "invalid_request", 900144, "client_id is missing")
	case !tenantKnown:
		return fail(http.StatusBadRequest, "invalid_request", 90002, "there is no tenant "+tenant)
	case application == nil || !strings.EqualFold(application.TenantID, tenant):
		return fail(http.StatusBadRequest, "unauthorized_client", 700016, "there is no application "+id+" in the tenant")
	case secret == "":
		return fail(http.StatusUnauthorized, "invalid_client", 7000218, "client_secret is missing")
	case secret != application.ClientSecret:
		return fail(http.StatusUnauthorized, "invalid_client", 7000215, "the client secret is wrong")
	case form.Get("scope") != azureScope:
		return fail(http.StatusBadRequest, "invalid_scope", 70011, "scope must be "+azureScope)
	}
	t := token{Value: p.secret("azure token"), Marketplace: Azure, Principal: strings.ToLower(id), Expires: p.now.Add(azureLifetime)}
	p.tokens = append(p.tokens, t)
	p.decisions = append(p.decisions, Decision{Outcome: Answered})
	var expiresIn any = int(azureLifetime.Seconds()) - 1
	if application.ExpiresInAsString {
		expiresIn = fmt.Sprint(expiresIn)
	}
	return jsonResponse(http.StatusOK, "application/json; charset=utf-8", map[string]any{
		"token_type": "Bearer", "expires_in": expiresIn, "ext_expires_in": expiresIn, "access_token": t.Value,
	})
}

// form reads an application/x-www-form-urlencoded body, in which no parameter may appear twice.
func (c *call) form() (url.Values, error) {
	if kind, _, err := mime.ParseMediaType(c.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, fmt.Errorf("Content-Type must be application/x-www-form-urlencoded")
	}
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return nil, fmt.Errorf("the body is not a form: %w", err)
	}
	for name, values := range form {
		if len(values) > 1 {
			return nil, fmt.Errorf("parameter %s appears twice", name)
		}
	}
	return form, nil
}

// bearer returns the token of the request if it was issued and has not expired.
func (c *call) bearer() (token, string) {
	value, ok := strings.CutPrefix(c.Header.Get("Authorization"), "Bearer ")
	t, known := c.state.tokens[value]
	switch {
	case !ok || value == "":
		return token{}, "there is no bearer token in Authorization"
	case !known || t.Marketplace != c.marketplace:
		return token{}, "the token was not given out here"
	case !c.now.Before(t.Expires):
		return token{}, "the token expired at " + t.Expires.Format(time.RFC3339)
	}
	return t, ""
}

// api is the metering service.
func (p azureProtocol) api() response {
	t, reason := p.bearer()
	if reason != "" {
		return p.refuseAll(http.StatusForbidden, "Forbidden", reason)
	}
	for _, name := range []string{"X-Ms-Requestid", "X-Ms-Correlationid"} {
		if id := p.Header.Get(name); id != "" && !guidForm.MatchString(id) {
			return p.badRequest(strings.ToLower(name), "it must be a GUID")
		}
	}
	query, err := p.query()
	if err != nil {
		return p.badRequest("query", err.Error())
	}
	if query["api-version"] != azureVersion {
		return p.badRequest("api-version", "api-version must be "+azureVersion)
	}
	if !slices.ContainsFunc(p.state.catalog.Azure.Offers, func(o AzureOffer) bool { return strings.EqualFold(o.ClientID, t.Principal) }) {
		return p.refuseAll(http.StatusForbidden, "Forbidden", "the application is in no offer's technical configuration")
	}
	if p.call.operation == opUsageEvents {
		return p.list(t, query)
	}
	if len(query) > 1 {
		return p.badRequest("query", "api-version is the only parameter")
	}
	if kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return p.refuseAll(http.StatusUnsupportedMediaType, "UnsupportedMediaType", "Content-Type must be application/json")
	}
	if len(p.body) >= maxBody {
		return p.badRequest("request", "the body is too large")
	}
	body, err := parseObject(p.body)
	if err != nil {
		return p.badRequest("request", err.Error())
	}
	if p.call.operation == opUsageEvent {
		return p.single(t, body)
	}
	return p.batch(t, body)
}

// query returns the parameters by their lower-case names. None may appear twice.
func (p azureProtocol) query() (map[string]string, error) {
	values, err := url.ParseQuery(p.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	query := map[string]string{}
	for name, v := range values {
		lower := strings.ToLower(name)
		if _, twice := query[lower]; twice || len(v) > 1 {
			return nil, fmt.Errorf("%s appears twice", name)
		}
		query[lower] = v[0]
	}
	return query, nil
}

// An azureEvent is a usage event as it was sent, with its status.
type azureEvent struct {
	azureMessage
	quantity float64
	time     time.Time

	subscription *AzureSubscription
	offer        *AzureOffer
	unit         *Dimension
	// foreign reports whether the resource belongs to another publisher. An offer without a
	// publisher in the catalog has a publisher of its own.
	foreign bool
}

// readEvent reads an event. It returns an error for a shape that fails the whole request. A missing
// or bad value is the event's own BadArgument, returned as a reason.
func readEvent(o *object, at string) (e azureEvent, target, reason string, err error) {
	err = o.only(at, "resourceId", "resourceUri", "quantity", "dimension", "effectiveStartTime", "planId")
	for _, m := range []struct {
		name string
		into *string
	}{
		{"resourceId", &e.ResourceID},
		{"resourceUri", &e.ResourceURI},
		{"dimension", &e.Dimension},
		{"effectiveStartTime", &e.EffectiveStartTime},
		{"planId", &e.PlanID},
	} {
		if err == nil {
			*m.into, err = o.text(at, m.name)
		}
	}
	if err != nil {
		return e, "", "", err
	}
	// A quantity that is no double fails its event alone. Its echo is left out.
	number, double := o.members["quantity"].(json.Number)
	if double {
		e.quantity, err = strconv.ParseFloat(number.String(), 64)
		if double = err == nil; double {
			e.Quantity, _ = json.Marshal(e.quantity) // a finite number
		}
	}
	switch {
	case e.ResourceID == "" && e.ResourceURI == "":
		return e, "ResourceId", "The resourceId is required.", nil
	case e.ResourceID != "" && e.ResourceURI != "":
		return e, "ResourceId", "resourceId and resourceUri cannot both be set.", nil
	case e.ResourceID != "" && !guidForm.MatchString(e.ResourceID):
		return e, "ResourceId", "The resourceId must be a GUID.", nil
	case e.ResourceURI != "" && !managedAppForm.MatchString(e.ResourceURI):
		return e, "ResourceUri", "The resourceUri must be /subscriptions/{GUID}/resourceGroups/...", nil
	case !o.has("quantity"):
		return e, "Quantity", "The quantity is required.", nil
	case !double:
		return e, "Quantity", "The quantity must be a double.", nil
	case e.Dimension == "":
		return e, "Dimension", "The dimension is required.", nil
	case e.PlanID == "":
		return e, "PlanId", "The planId is required.", nil
	case e.EffectiveStartTime == "":
		return e, "EffectiveStartTime", "The effectiveStartTime is required.", nil
	}
	if e.time, err = azureTime(e.EffectiveStartTime); err != nil {
		return e, "EffectiveStartTime", "The effectiveStartTime must be a time in UTC, such as 2026-11-26T22:00:00Z.", nil
	}
	return e, "", "", nil
}

// azureTime reads a time in UTC, with or without a Z.
func azureTime(text string) (time.Time, error) {
	return parseTime(strings.TrimSuffix(text, "Z") + "Z")
}

// identity is the key by which the marketplace deduplicates. The plan is not part of it.
func (e *azureEvent) identity() string {
	return identityOf(strings.ToLower(e.ResourceID+e.ResourceURI), e.Dimension, e.time.Truncate(time.Hour).Format(time.RFC3339))
}

// find looks up the resource. It returns a status and a reason if the event fails, or empty
// strings.
func (p azureProtocol) find(t token, e *azureEvent) (status, reason string) {
	e.subscription = p.state.catalog.resources[strings.ToLower(e.ResourceID+e.ResourceURI)]
	if e.subscription == nil {
		return azNotFound, "The usage resource provided is invalid."
	}
	e.offer = p.state.catalog.offers[e.subscription.OfferID]
	if strings.EqualFold(e.offer.ClientID, t.Principal) {
		return "", ""
	}
	e.foreign = !slices.ContainsFunc(p.state.catalog.Azure.Offers, func(o AzureOffer) bool {
		return strings.EqualFold(o.ClientID, t.Principal) && o.Publisher != "" && o.Publisher == e.offer.Publisher
	})
	return azNotAuthorized, "You are not authorized to provide usage for this resource."
}

// judge returns the status of an event whose resource was found. For a duplicate it also returns
// the accepted record. An accepted event stays valid: what depends on the time or the catalog is
// checked after it.
func (p azureProtocol) judge(e *azureEvent) (status, reason string, earlier *Record) {
	if !(e.quantity > 0) {
		return azQuantity, "The quantity passed is lower or equal to 0.", nil
	}
	if earlier := p.call.find(e.identity()); earlier != nil {
		return azDuplicate, fmt.Sprintf("request %d was accepted for this hour with %s", earlier.Request, earlier.Quantity), earlier
	}
	s := e.subscription
	switch s.State {
	case AzurePending, AzureSuspended:
		return azNotActive, "The resource is suspended or was never activated.", nil
	case AzureUnsubscribed:
		if !e.time.Before(*s.Cancelled) && !p.now.Before(*s.Cancelled) {
			return azNotActive, "The subscription was cancelled before this time.", nil
		}
	}
	if e.PlanID != s.PlanID {
		return azBadArgument, "The planId is not the plan purchased for the offer.", nil
	}
	for i := range e.offer.Plans {
		if e.offer.Plans[i].PlanID == e.PlanID {
			e.unit = dimension(e.offer.Plans[i].Dimensions, e.Dimension)
		}
	}
	age := p.now.Sub(e.time)
	switch {
	case e.unit == nil:
		return azDimension, "The dimension for which the usage is passed is invalid for this offer/plan.", nil
	case age < 0:
		return azBadArgument, "The effectiveStartTime is in the future.", nil
	case age > azureWindow:
		return azExpired, "The effectiveStartTime is more than 24 hours in the past.", nil
	}
	return azAccepted, "", nil
}

// accept stores the event.
func (p azureProtocol) accept(i int, e *azureEvent) {
	e.UsageEventID = p.uuid("event", i)
	e.MessageTime = messageTime(p.now)
	s := e.subscription
	p.records = append(p.records, Record{
		Marketplace: Azure, Identity: e.identity(), ID: e.UsageEventID, Request: p.number, Buyer: cmp.Or(s.Buyer, s.ResourceID+s.ResourceURI),
		Product: e.offer.OfferID, Plan: e.PlanID, Resource: e.ResourceID + e.ResourceURI, Dimension: e.Dimension, Time: e.time, Accepted: p.now,
		Quantity: formatDecimal(mustDecimal(strconv.FormatFloat(e.quantity, 'f', -1, 64))),
		Price:    priceOf(e.unit.Price), Currency: currencyOf(e.offer.Currency),
	})
}

func messageTime(t time.Time) string { return t.Format("2006-01-02T15:04:05.0000000Z") }

// conflict is the error of a duplicate, with the accepted event.
func (e *azureEvent) conflict(earlier *Record) *azureError {
	quantity, _ := strconv.ParseFloat(earlier.Quantity, 64)
	echo, _ := json.Marshal(quantity)
	accepted := azureMessage{
		UsageEventID: earlier.ID, Status: azDuplicate, MessageTime: messageTime(earlier.Accepted), Quantity: echo,
		Dimension: earlier.Dimension, EffectiveStartTime: earlier.Time.Format("2006-01-02T15:04:05.9999999Z"), PlanID: earlier.Plan,
	}
	if e.ResourceID != "" {
		accepted.ResourceID = earlier.Resource
	} else {
		accepted.ResourceURI = earlier.Resource
	}
	return &azureError{Code: "Conflict", Message: "This usage event already exist.", AdditionalInfo: &azureAdditionalInfo{accepted}}
}

// single is POST usageEvent, which has its own HTTP status for each outcome.
func (p azureProtocol) single(t token, body *object) response {
	e, target, reason, err := readEvent(body, "")
	if err != nil {
		return p.badRequest("usageEventRequest", err.Error())
	}
	refuse := func(status, target, reason string) response {
		p.refuse(Refused, status, reason)
		return jsonResponse(http.StatusBadRequest, "application/json; charset=utf-8", azureError{
			Code: status, Message: "One or more errors have occurred.", Target: "usageEventRequest",
			Details: []azureError{{Code: status, Message: reason, Target: target}},
		})
	}
	if reason != "" {
		return refuse(azBadArgument, target, reason)
	}
	status, reason := p.find(t, &e)
	if status == azNotAuthorized {
		return p.refuseAll(http.StatusForbidden, "Forbidden", reason)
	}
	if status != "" {
		return refuse(status, "ResourceId", reason)
	}
	if p.fault.is(Unprocessed) {
		p.refuse(NotDone, azError, "fault "+Unprocessed)
		return p.failure(p.fault)
	}
	status, reason, earlier := p.judge(&e)
	switch status {
	case azAccepted:
		p.accept(0, &e)
		p.decided(0, e.identity(), Accepted, azAccepted, "")
		e.Status = azAccepted
		return jsonResponse(http.StatusOK, "application/json; charset=utf-8", e.azureMessage)
	case azDuplicate:
		p.decided(0, e.identity(), Duplicate, azDuplicate, reason)
		return jsonResponse(http.StatusConflict, "application/json; charset=utf-8", e.conflict(earlier))
	}
	return refuse(status, "", reason)
}

// batch is POST batchUsageEvent. Each event has its own status; the results are in random order.
func (p azureProtocol) batch(t token, body *object) response {
	err := body.only("", "request")
	var list []*object
	if err == nil {
		list, err = body.objects("", "request")
	}
	switch {
	case err != nil:
		return p.badRequest("batchUsageEventRequest", err.Error())
	case len(list) == 0:
		return p.badRequest("batchUsageEventRequest", "request must have 1 to 25 usage events.")
	case len(list) > azureMaxEvents:
		return p.badRequest("batchUsageEventRequest", "The batch contained more than 25 usage events.")
	}
	events, reasons := make([]azureEvent, len(list)), make([]string, len(list))
	for i, o := range list {
		if events[i], _, reasons[i], err = readEvent(o, element("request", i)); err != nil {
			return p.badRequest("batchUsageEventRequest", err.Error())
		}
		if reasons[i] != "" {
			events[i].Status = azBadArgument
			continue
		}
		if events[i].Status, reasons[i] = p.find(t, &events[i]); events[i].foreign {
			return p.refuseAll(http.StatusForbidden, "Forbidden", element("request", i)+": the resource is another publisher's")
		}
	}
	undone, missing := map[int]bool{}, map[int]bool{}
	if p.fault.is(Unprocessed) {
		undone = p.fault.chosen(len(events))
	}
	if p.fault.is(Partial) {
		missing = p.fault.chosen(len(events))
	}
	results := []azureMessage{}
	for i := range events {
		e := &events[i]
		e.MessageTime = "0001-01-01T00:00:00"
		outcome, identity := Refused, ""
		if e.Status != azBadArgument {
			identity = e.identity()
		}
		var earlier *Record
		switch {
		case e.Status != "":
		case undone[i]:
			e.Status, reasons[i], outcome = azError, "fault "+Unprocessed, NotDone
		default:
			e.Status, reasons[i], earlier = p.judge(e)
		}
		switch e.Status {
		case azAccepted:
			p.accept(i, e)
			outcome = Accepted
		case azDuplicate:
			e.Error = e.conflict(earlier)
			outcome = Duplicate
		default:
			e.Error = &azureError{Code: e.Status, Message: reasons[i]}
		}
		p.decided(i, identity, outcome, e.Status, reasons[i])
		if !missing[i] {
			results = append(results, e.azureMessage)
		}
	}
	chance := p.chance("order")
	chance.Shuffle(len(results), func(i, j int) { results[i], results[j] = results[j], results[i] })
	return jsonResponse(http.StatusOK, "application/json; charset=utf-8", map[string]any{"count": len(results), "result": results})
}

// An azureDay is the usage submitted for a resource, dimension and plan on a day.
type azureDay struct {
	UsageDate           string          `json:"usageDate"`
	UsageResourceID     string          `json:"usageResourceId"`
	Dimension           string          `json:"dimension"`
	PlanID              string          `json:"planId"`
	PlanName            string          `json:"planName"`
	OfferID             string          `json:"offerId"`
	OfferName           string          `json:"offerName"`
	OfferType           string          `json:"offerType"`
	AzureSubscriptionID string          `json:"azureSubscriptionId"`
	ReconStatus         string          `json:"reconStatus"`
	SubmittedQuantity   json.RawMessage `json:"submittedQuantity"`
	ProcessedQuantity   json.RawMessage `json:"processedQuantity"`
	SubmittedCount      int             `json:"submittedCount"`
}

// list is GET usageEvents: the usage that the application has submitted, by day.
func (p azureProtocol) list(t token, query map[string]string) response {
	for name := range query {
		if !slices.Contains([]string{"api-version", "usagestartdate", "usageenddate", "offerid", "planid", "dimension", "azuresubscriptionid", "reconstatus"}, name) {
			return p.badRequest("query", "there is no parameter "+name)
		}
	}
	from, err := azureDate(query["usagestartdate"])
	if err != nil {
		return p.badRequest("usageStartDate", "usageStartDate must be a date, such as 2020-12-03 or 2020-12-03T15:00")
	}
	to := p.now
	if text, given := query["usageenddate"]; given {
		if to, err = azureDate(text); err != nil {
			return p.badRequest("UsageEndDate", "UsageEndDate must be a date, such as 2020-12-03 or 2020-12-03T15:00")
		}
	}
	type day struct{ date, resource, dimension, plan string }
	sums := map[day][]*Record{}
	for i := range p.state.records {
		r := &p.state.records[i]
		if r.Marketplace != Azure {
			continue
		}
		date := r.Time.Truncate(24 * time.Hour)
		if date.Before(from.Truncate(24*time.Hour)) || date.After(to) {
			continue
		}
		key := day{date.Format("2006-01-02T15:04:05Z"), strings.ToLower(r.Resource), r.Dimension, r.Plan}
		sums[key] = append(sums[key], r)
	}
	days := []azureDay{}
	for key, records := range sums {
		s := p.state.catalog.resources[key.resource]
		offer := p.state.catalog.offers[records[0].Product]
		if offer == nil || !strings.EqualFold(offer.ClientID, t.Principal) {
			continue
		}
		total := mustDecimal("0")
		for _, r := range records {
			total.Add(total, mustDecimal(r.Quantity))
		}
		d := azureDay{
			UsageDate: key.date, UsageResourceID: records[0].Resource, Dimension: key.dimension, PlanID: key.plan, OfferID: offer.OfferID,
			OfferType: "SaaS", ReconStatus: "Submitted", SubmittedQuantity: double(total.Float64()), ProcessedQuantity: json.RawMessage("0"),
			SubmittedCount: len(records),
		}
		if s != nil {
			d.AzureSubscriptionID = s.AzureSubscriptionID
			if s.ResourceURI != "" {
				d.OfferType = "AzureApplication"
			}
		}
		// A day is Submitted until the end of the next day, and Accepted afterwards, unless the
		// catalog sets another status.
		if date, _ := time.Parse("2006-01-02T15:04:05Z", key.date); p.now.Sub(date) >= 48*time.Hour {
			d.ReconStatus, d.ProcessedQuantity = "Accepted", d.SubmittedQuantity
		}
		for _, r := range p.state.catalog.Azure.Reconciliations {
			if r.Date == key.date[:len(r.Date)] && strings.ToLower(r.Resource) == key.resource && r.Dimension == key.dimension {
				processed, _ := parseDecimal(r.ProcessedQuantity)
				d.ReconStatus, d.ProcessedQuantity = r.ReconStatus, double(processed.Float64())
			}
		}
		if wants(query, "offerid", d.OfferID) && wants(query, "planid", d.PlanID) && wants(query, "dimension", d.Dimension) &&
			wants(query, "azuresubscriptionid", d.AzureSubscriptionID) && wants(query, "reconstatus", d.ReconStatus) {
			days = append(days, d)
		}
	}
	slices.SortFunc(days, func(a, b azureDay) int {
		return cmp.Or(cmp.Compare(a.UsageDate, b.UsageDate), cmp.Compare(a.UsageResourceID, b.UsageResourceID),
			cmp.Compare(a.Dimension, b.Dimension), cmp.Compare(a.PlanID, b.PlanID))
	})
	p.decisions = append(p.decisions, Decision{Outcome: Answered})
	return jsonResponse(http.StatusOK, "application/json; charset=utf-8", days)
}

// double writes the nearest double. A sum of doubles may exceed the largest.
func double(f float64, _ bool) json.RawMessage {
	text, _ := json.Marshal(min(f, math.MaxFloat64))
	return text
}

func wants(query map[string]string, name, value string) bool {
	wanted, given := query[name]
	return !given || strings.EqualFold(wanted, value)
}

func azureDate(text string) (time.Time, error) {
	text = strings.TrimSuffix(text, "Z")
	switch len(text) {
	case len("2006-01-02"):
		text += "T00:00"
		fallthrough
	case len("2006-01-02T15:04"):
		text += ":00"
	}
	return azureTime(text)
}
