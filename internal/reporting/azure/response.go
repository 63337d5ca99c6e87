package azure

import (
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// statuses is what the status of an event in the response means.
//
// Source: "Metered billing batch usage event", the table of statuses. A status that is not here
// leaves the event in doubt. So does Error, an internal error: the source does not say that the
// event was not stored.
var statuses = map[string]reporting.Rule{
	"Accepted":  {Verdict: reports.Billed, Next: reporting.Done},
	"Duplicate": {Verdict: reports.Duplicate, Next: reporting.Done, Problem: metering.ProblemConflict},
	"Error":     {Verdict: reports.InDoubt, Next: reporting.Resend},
	"Expired":   refused(metering.ProblemExpired),
	// The subscription is suspended, or not activated yet.
	"ResourceNotActive":     {Verdict: reports.Refused, Next: reporting.Hourly, Problem: metering.ProblemNotSubscribed},
	"ResourceNotFound":      refused(metering.ProblemMarketplaceRefused),
	"ResourceNotAuthorized": refused(metering.ProblemMarketplaceRefused),
	"InvalidDimension":      refused(metering.ProblemDimensionUnknown),
	"InvalidQuantity":       refused(metering.ProblemQuantityRange),
	"BadArgument":           refused(metering.ProblemMarketplaceRefused),
}

func refused(problem metering.ProblemCode) reporting.Rule {
	return reporting.Rule{Verdict: reports.Refused, Next: reporting.Done, Problem: problem}
}

// refusals is what an HTTP status means whose body is an error of Azure's. Nothing of the request
// was done. Any other status leaves the events in doubt: 409 belongs to usageEvent alone, and here
// means nothing.
//
// Sources: "Metered billing batch usage event", responses 400, 401 and 403; RFC 6585 for 429.
var refusals = map[int]reporting.Rule{
	400: reporting.SomeAtFault(metering.ProblemMarketplaceRefused),
	401: reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	// The token is refused, or an event is for the resource of another publisher. Which of them,
	// only other requests show: if one passes, the token is accepted (decision 59).
	403: reporting.SomeOrLaneAtFault(reporting.CredentialsRefused, metering.ProblemMarketplaceRefused),
	429: reporting.LaneAtFault(reporting.Throttled, metering.ProblemMarketplaceRefused),
}

// message is an event in a response.
type message struct {
	UsageEventID       string         `json:"usageEventId"`
	Status             string         `json:"status"`
	MessageTime        string         `json:"messageTime"`
	ResourceID         string         `json:"resourceId"`
	ResourceURI        string         `json:"resourceUri"`
	Quantity           jsontext.Value `json:"quantity"`
	Dimension          string         `json:"dimension"`
	EffectiveStartTime string         `json:"effectiveStartTime"`
	Error              *failure       `json:"error"`
}

type failure struct {
	Code           string    `json:"code"`
	Message        string    `json:"message"`
	Details        []failure `json:"details"`
	AdditionalInfo struct {
		AcceptedMessage *message `json:"acceptedMessage"`
	} `json:"additionalInfo"`
}

func (f *failure) String() string {
	parts := []string{f.Code + ": " + f.Message}
	for i := range f.Details {
		parts = append(parts, f.Details[i].String())
	}
	return strings.Join(parts, "; ")
}

// readError returns the text of an error response, and whether the body is one.
func readError(body []byte) (reason string, readable bool) {
	var f failure
	if json.Unmarshal(body, &f) != nil || f.Code == "" && f.Message == "" {
		return "", false
	}
	return f.String(), true
}

// readResults reads the body of a 200. Events that it does not name stay as they are. Their order
// is not promised.
func readResults(call *reporting.Call, body []byte) {
	var response struct {
		Result []jsontext.Value `json:"result"`
	}
	if json.Unmarshal(body, &response) != nil {
		return // a body that is cut or no JSON: all are in doubt
	}
	for _, raw := range response.Result {
		var m message
		if json.Unmarshal(raw, &m) != nil {
			continue
		}
		var sent *reporting.Record
		for i := range call.Sent {
			if m.is(&call.Sent[i]) {
				sent = &call.Sent[i]
			}
		}
		if sent != nil {
			call.Say(m.is, m.result(sent, raw))
		}
	}
}

// is reports whether the message is of the record. Identifiers that the response leaves out are not
// compared: the others decide if only one record has them.
func (m *message) is(r *reporting.Record) bool {
	_, ok := readTime(m.EffectiveStartTime)
	return ok && m.mayBe(r)
}

// mayBe is as is, for a message that stands in one of the record: a time that can't be read is not
// compared either. A managed application has a resourceId beside its resourceUri, and the sources
// name either.
func (m *message) mayBe(r *reporting.Record) bool {
	at, ok := readTime(m.EffectiveStartTime)
	same := m.ResourceID == "" && m.ResourceURI == "" || strings.EqualFold(m.ResourceID, resource(r)) || strings.EqualFold(m.ResourceURI, resource(r))
	return m.Dimension == r.Dimension && (!ok || at.Truncate(time.Hour).Equal(r.Hour())) && same
}

func (m *message) result(sent *reporting.Record, raw []byte) reporting.Result {
	reason := "Azure's status is " + metering.Quote(m.Status)
	if m.Error != nil {
		reason += ", " + m.Error.String()
	}
	result := statuses[m.Status].Result(reason)
	result.Raw = raw
	switch result.Verdict {
	case reports.Billed:
		// Another quantity than ours is not what was sent. A resend brings the accepted event.
		if len(m.Quantity) > 0 && !sameDouble(m.Quantity, sent) {
			return reporting.Result{Reason: "Azure accepted " + string(m.Quantity) + ", but " + sent.Quantity.String() + " was sent", Raw: raw}
		}
		result.Receipt = m.UsageEventID
	case reports.Duplicate:
		if m.Error != nil {
			result.Accepted = m.Error.AdditionalInfo.AcceptedMessage.accepted(sent)
		}
		if result.Accepted != nil {
			result.Receipt = result.Accepted.Receipt
		}
	}
	return result
}

// accepted returns what the message reports of the event that stands, or nil if it reports no
// quantity or is of another record.
func (m *message) accepted(sent *reporting.Record) *reporting.Accepted {
	if m == nil || !m.mayBe(sent) {
		return nil
	}
	if _, err := strconv.ParseFloat(string(m.Quantity), 64); err != nil {
		return nil
	}
	at, _ := readTime(m.MessageTime)
	return &reporting.Accepted{Quantity: string(m.Quantity), Equal: sameDouble(m.Quantity, sent), Time: at, Receipt: m.UsageEventID}
}

// sameDouble compares as doubles, which Azure stores.
func sameDouble(quantity jsontext.Value, sent *reporting.Record) bool {
	theirs, err := strconv.ParseFloat(string(quantity), 64)
	ours, _ := strconv.ParseFloat(sent.Quantity.String(), 64)
	return err == nil && theirs == ours
}

// readTime reads a time with a Z or an offset, or one in UTC without either: Azure writes all of
// them. 0001-01-01 is no time.
func readTime(text string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t, err = time.Parse(time.RFC3339, text+"Z")
	}
	if err != nil || t.UTC().Year() <= 1 {
		return time.Time{}, false
	}
	return t, true
}
