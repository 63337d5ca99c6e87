package wire

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// The stored form of hours. It is read strictly: what this version does not know in all its parts,
// it must not act on, so each decoder returns reports.ErrNewer for it. Numbers are the text of an
// Exact, times have nanoseconds: what is read is what was written. What is zero is not written.

// storedForm is the version of the form. A change that this version would misunderstand needs the
// next one.
const storedForm = 1

// AppendStoredRecords appends some of the records of a sealed hour, as the table stores them. The
// first of its parts also has what else is sealed; sealed is nil in the others.
func AppendStoredRecords(b []byte, sealed *reports.Sealed, records []reports.Record) []byte {
	b = beginStored(b)
	if sealed != nil {
		b = appendSealed(appendName(b, "sealed"), sealed)
	}
	b = append(appendName(b, "records"), '[')
	for i := range records {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendRecord(b, &records[i])
	}
	return append(b, "]}"...)
}

// DecodeStoredRecords reads what AppendStoredRecords has written.
func DecodeStoredRecords(text []byte) (sealed *reports.Sealed, records []reports.Record, err error) {
	type part struct {
		stored
		sealed  *reports.Sealed
		records []reports.Record
	}
	p, err := decodeHour(text, &object[part]{"records of an hour, an object", []member[part]{
		form(func(p *part) *stored { return &p.stored }),
		field("sealed", pointer(storedSealed().value), func(p *part) **reports.Sealed { return &p.sealed }),
		field("records", listOf("an array of records", storedRecord().value), func(p *part) *[]reports.Record { return &p.records }),
	}})
	return p.sealed, p.records, err
}

// AppendStoredLedger appends a ledger as the table stores it.
func AppendStoredLedger(b []byte, l *reports.Ledger) []byte {
	b = appendInteger(beginStored(b), "version", l.Version)
	b = appendExact(b, "used", l.Used)
	return append(appendExacts(b, "carry", l.Carry), '}')
}

// DecodeStoredLedger reads what AppendStoredLedger has written.
func DecodeStoredLedger(text []byte) (reports.Ledger, error) {
	type ledger struct {
		stored
		reports.Ledger
	}
	l, err := decodeHour(text, &object[ledger]{"a ledger, an object", []member[ledger]{
		form(func(l *ledger) *stored { return &l.stored }),
		field("version", (*decoder).integer, func(l *ledger) *int { return &l.Version }),
		field("used", (*decoder).exact, func(l *ledger) *metering.Exact { return &l.Used }),
		field("carry", (*decoder).exacts, func(l *ledger) *map[string]metering.Exact { return &l.Carry }),
	}})
	return l.Ledger, err
}

// AppendStoredCandidates appends the ids of a list of candidates as the table stores them.
func AppendStoredCandidates(b []byte, ids []metering.GroupID) []byte {
	return append(appendTexts(beginStored(b), "ids", ids), '}')
}

// DecodeStoredCandidates reads what AppendStoredCandidates has written.
func DecodeStoredCandidates(text []byte) ([]metering.GroupID, error) {
	type candidates struct {
		stored
		ids []metering.GroupID
	}
	c, err := decodeHour(text, &object[candidates]{"a list of candidates, an object", []member[candidates]{
		form(func(c *candidates) *stored { return &c.stored }),
		field("ids", listOf("an array of ids", textAs[metering.GroupID]), func(c *candidates) *[]metering.GroupID { return &c.ids }),
	}})
	return c.ids, err
}

// AppendStoredSum appends the sum of a list of candidates as the table stores it.
func AppendStoredSum(b []byte, s *reports.Sum) []byte {
	b = appendInteger(beginStored(b), "members", s.Members)
	b = appendTexts(b, "absent", s.Absent)
	b = appendExacts(b, "totals", s.Totals)
	return append(appendFlag(b, "billable", s.Billable), '}')
}

// DecodeStoredSum reads what AppendStoredSum has written.
func DecodeStoredSum(text []byte) (*reports.Sum, error) {
	type sum struct {
		stored
		reports.Sum
	}
	s, err := decodeHour(text, &object[sum]{"a sum, an object", []member[sum]{
		form(func(s *sum) *stored { return &s.stored }),
		field("members", (*decoder).integer, func(s *sum) *int { return &s.Members }),
		field("absent", listOf("an array of ids", textAs[metering.GroupID]), func(s *sum) *[]metering.GroupID { return &s.Absent }),
		field("totals", (*decoder).exacts, func(s *sum) *map[string]metering.Exact { return &s.Totals }),
		field("billable", (*decoder).boolean, func(s *sum) *bool { return &s.Billable }),
	}})
	if err != nil {
		return nil, err
	}
	return &s.Sum, nil
}

// AppendStoredCalls appends calls as the table stores them. Requests and responses are strings, so
// that their bytes stay as they are.
func AppendStoredCalls(b []byte, calls []reports.StoredCall) []byte {
	b = append(appendName(beginStored(b), "calls"), '[')
	for i := range calls {
		c := &calls[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendExactTime(append(b, '{'), "time", c.Time)
		b = appendInteger(b, "status", c.Status)
		b = appendString(b, "requestID", c.RequestID)
		b = appendString(b, "correlationID", c.CorrelationID)
		b = appendString(b, "request", c.Request)
		b = append(appendTexts(b, "responses", c.Responses), '}')
	}
	return append(b, "]}"...)
}

// DecodeStoredCalls reads what AppendStoredCalls has written.
func DecodeStoredCalls(text []byte) ([]reports.StoredCall, error) {
	type all struct {
		stored
		calls []reports.StoredCall
	}
	call := &object[reports.StoredCall]{"a call, an object", []member[reports.StoredCall]{
		field("time", (*decoder).exactTime, func(c *reports.StoredCall) *time.Time { return &c.Time }),
		field("status", (*decoder).integer, func(c *reports.StoredCall) *int { return &c.Status }),
		field("requestID", (*decoder).text, func(c *reports.StoredCall) *string { return &c.RequestID }),
		field("correlationID", (*decoder).text, func(c *reports.StoredCall) *string { return &c.CorrelationID }),
		field("request", textAs[[]byte], func(c *reports.StoredCall) *[]byte { return &c.Request }),
		field("responses", listOf("an array of responses", textAs[[]byte]), func(c *reports.StoredCall) *[][]byte { return &c.Responses }),
	}}
	a, err := decodeHour(text, &object[all]{"calls, an object", []member[all]{
		form(func(a *all) *stored { return &a.stored }),
		field("calls", listOf("an array of calls", call.value), func(a *all) *[]reports.StoredCall { return &a.calls }),
	}})
	return a.calls, err
}

// stored is what each stored object begins with.
type stored struct{ form int }

func beginStored(b []byte) []byte { return appendInteger(append(b, '{'), "form", storedForm) }

func form[O any](to func(*O) *stored) member[O] {
	return field("form", (*decoder).integer, func(o *O) *int { return &to(o).form })
}

func (s stored) check() error {
	if s.form != storedForm {
		return fmt.Errorf("form is %d: it must be %d", s.form, storedForm)
	}
	return nil
}

// decodeHour reads a stored object of an hour.
func decodeHour[O interface{ check() error }](text []byte, o *object[O]) (O, error) {
	value, err := decode(text, o.value)
	if err == nil {
		err = value.check()
	}
	if err != nil {
		var none O
		// Without the code of err, by which it would be a client's mistake.
		return none, fmt.Errorf("%w: %s", reports.ErrNewer, err.Error())
	}
	return value, nil
}

func appendSealed(b []byte, s *reports.Sealed) []byte {
	b = appendExactTime(append(b, '{'), "from", s.From)
	b = appendExactTime(b, "to", s.To)
	b = appendString(b, "partner", s.Partner)
	// Without what another version knows of them: this one has not sent it.
	b = appendMembers(appendName(b, "marketplace"), metering.MarketplaceMembers, &s.Marketplace, nil)
	b = appendString(b, "buyer", s.Buyer)
	b = appendString(b, "product", s.Product)
	b = appendString(b, "lane", s.Lane)
	b = appendInteger(b, "groups", s.Groups)
	b = appendInteger(b, "config", s.Config)
	b = appendExactTime(b, "entitlement", s.Entitlement)
	b = appendExact(b, "commitAmount", s.CommitAmount)
	b = appendExact(b, "usedCommit", s.UsedCommit)
	if len(s.Aggregates) > 0 {
		b = AppendQuantities(appendName(b, "aggregates"), s.Aggregates)
	}
	if len(s.Destinations) > 0 {
		b = append(appendName(b, "destinations"), '{')
		for _, key := range slices.Sorted(maps.Keys(s.Destinations)) {
			b = appendValue(appendName(b, key), s.Destinations[key])
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

func storedSealed() *object[reports.Sealed] {
	return &object[reports.Sealed]{"what is sealed, an object", []member[reports.Sealed]{
		field("from", (*decoder).exactTime, func(s *reports.Sealed) *time.Time { return &s.From }),
		field("to", (*decoder).exactTime, func(s *reports.Sealed) *time.Time { return &s.To }),
		field("partner", textAs[metering.Partner], func(s *reports.Sealed) *metering.Partner { return &s.Partner }),
		field("marketplace", (*decoder).marketplaceIDs, func(s *reports.Sealed) *metering.MarketplaceIDs { return &s.Marketplace }),
		field("buyer", textAs[metering.BuyerID], func(s *reports.Sealed) *metering.BuyerID { return &s.Buyer }),
		field("product", textAs[metering.ProductID], func(s *reports.Sealed) *metering.ProductID { return &s.Product }),
		field("lane", (*decoder).text, func(s *reports.Sealed) *string { return &s.Lane }),
		field("groups", (*decoder).integer, func(s *reports.Sealed) *int { return &s.Groups }),
		field("config", (*decoder).integer, func(s *reports.Sealed) *int { return &s.Config }),
		field("entitlement", (*decoder).exactTime, func(s *reports.Sealed) *time.Time { return &s.Entitlement }),
		field("commitAmount", (*decoder).exact, func(s *reports.Sealed) *metering.Exact { return &s.CommitAmount }),
		field("usedCommit", (*decoder).exact, func(s *reports.Sealed) *metering.Exact { return &s.UsedCommit }),
		field("aggregates", (*decoder).aggregates, func(s *reports.Sealed) *map[string]metering.Quantity { return &s.Aggregates }),
		field("destinations", (*decoder).destinations, func(s *reports.Sealed) *map[string][]string { return &s.Destinations }),
	}}
}

func appendRecord(b []byte, r *reports.Record) []byte {
	b = appendString(append(b, '{'), "dimension", r.Dimension)
	b = appendExact(b, "members", r.Members)
	b = appendQuantity(b, "quantity", r.Quantity)
	b = appendExact(b, "carryIn", r.CarryIn)
	b = appendExact(b, "carryOut", r.CarryOut)
	b = appendExact(b, "drawn", r.Drawn)
	b = appendExact(b, "drawnAmount", r.DrawnAmount)
	b = appendQuantity(b, "unitPrice", r.UnitPrice)
	b = appendQuantity(b, "listPrice", r.ListPrice)
	b = appendExact(b, "scale", r.Scale)
	if len(r.Attempts) > 0 {
		b = append(appendName(b, "attempts"), '[')
		for i := range r.Attempts {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendAttempt(b, &r.Attempts[i])
		}
		b = append(b, ']')
	}
	if r.Outcome != (reports.Outcome{}) {
		b = appendOutcome(appendName(b, "outcome"), &r.Outcome)
	}
	return append(b, '}')
}

func storedRecord() *object[reports.Record] {
	return &object[reports.Record]{"a record, an object", []member[reports.Record]{
		field("dimension", (*decoder).text, func(r *reports.Record) *string { return &r.Dimension }),
		field("members", (*decoder).exact, func(r *reports.Record) *metering.Exact { return &r.Members }),
		field("quantity", (*decoder).exactQuantity, func(r *reports.Record) *metering.Quantity { return &r.Quantity }),
		field("carryIn", (*decoder).exact, func(r *reports.Record) *metering.Exact { return &r.CarryIn }),
		field("carryOut", (*decoder).exact, func(r *reports.Record) *metering.Exact { return &r.CarryOut }),
		field("drawn", (*decoder).exact, func(r *reports.Record) *metering.Exact { return &r.Drawn }),
		field("drawnAmount", (*decoder).exact, func(r *reports.Record) *metering.Exact { return &r.DrawnAmount }),
		field("unitPrice", (*decoder).exactQuantity, func(r *reports.Record) *metering.Quantity { return &r.UnitPrice }),
		field("listPrice", (*decoder).exactQuantity, func(r *reports.Record) *metering.Quantity { return &r.ListPrice }),
		field("scale", (*decoder).exact, func(r *reports.Record) *metering.Exact { return &r.Scale }),
		field("attempts", listOf("an array of attempts", storedAttempt().value), func(r *reports.Record) *[]reports.Attempt { return &r.Attempts }),
		field("outcome", storedOutcome().value, func(r *reports.Record) *reports.Outcome { return &r.Outcome }),
	}}
}

func appendAttempt(b []byte, a *reports.Attempt) []byte {
	b = appendInteger(append(b, '{'), "number", a.Number)
	b = appendExactTime(b, "time", a.Time)
	b = appendString(b, "result", a.Result)
	b = appendString(b, "receipt", a.Receipt)
	b = appendString(b, "code", a.Code)
	b = appendString(b, "reason", a.Reason)
	b = appendFlag(b, "again", a.Again)
	b = appendFlag(b, "lane", a.Lane)
	b = appendKnown(b, "accepted", a.Accepted)
	b = appendExactTime(b, "acceptedAt", a.AcceptedAt)
	return append(b, '}')
}

func storedAttempt() *object[reports.Attempt] {
	return &object[reports.Attempt]{"an attempt, an object", []member[reports.Attempt]{
		field("number", (*decoder).integer, func(a *reports.Attempt) *int { return &a.Number }),
		field("time", (*decoder).exactTime, func(a *reports.Attempt) *time.Time { return &a.Time }),
		field("result", oneOfTexts(reports.Results), func(a *reports.Attempt) *reports.Result { return &a.Result }),
		field("receipt", (*decoder).text, func(a *reports.Attempt) *string { return &a.Receipt }),
		field("code", textAs[metering.ProblemCode], func(a *reports.Attempt) *metering.ProblemCode { return &a.Code }),
		field("reason", (*decoder).text, func(a *reports.Attempt) *string { return &a.Reason }),
		field("again", (*decoder).boolean, func(a *reports.Attempt) *bool { return &a.Again }),
		field("lane", (*decoder).boolean, func(a *reports.Attempt) *bool { return &a.Lane }),
		field("accepted", pointer((*decoder).exact), func(a *reports.Attempt) **metering.Exact { return &a.Accepted }),
		field("acceptedAt", (*decoder).exactTime, func(a *reports.Attempt) *time.Time { return &a.AcceptedAt }),
	}}
}

func appendOutcome(b []byte, o *reports.Outcome) []byte {
	b = appendString(append(b, '{'), "kind", o.Kind)
	b = appendString(b, "evidence", o.Evidence)
	b = appendString(b, "receipt", o.Receipt)
	b = appendString(b, "code", o.Code)
	b = appendString(b, "reason", o.Reason)
	b = appendKnown(b, "difference", o.Difference)
	b = appendString(b, "by", o.By)
	b = appendExactTime(b, "at", o.At)
	return append(b, '}')
}

func storedOutcome() *object[reports.Outcome] {
	return &object[reports.Outcome]{"an outcome, an object", []member[reports.Outcome]{
		field("kind", oneOfTexts(reports.Kinds), func(o *reports.Outcome) *reports.Kind { return &o.Kind }),
		field("evidence", oneOfTexts(reports.Evidences), func(o *reports.Outcome) *reports.Evidence { return &o.Evidence }),
		field("receipt", (*decoder).text, func(o *reports.Outcome) *string { return &o.Receipt }),
		field("code", textAs[metering.ProblemCode], func(o *reports.Outcome) *metering.ProblemCode { return &o.Code }),
		field("reason", (*decoder).text, func(o *reports.Outcome) *string { return &o.Reason }),
		field("difference", pointer((*decoder).exact), func(o *reports.Outcome) **metering.Exact { return &o.Difference }),
		field("by", (*decoder).text, func(o *reports.Outcome) *string { return &o.By }),
		field("at", (*decoder).exactTime, func(o *reports.Outcome) *time.Time { return &o.At }),
	}}
}

// Each of these appends a member, unless it is zero.

func appendInteger(b []byte, name string, n int) []byte {
	if n == 0 {
		return b
	}
	return strconv.AppendInt(appendName(b, name), int64(n), 10)
}

func appendString[T ~string | ~[]byte](b []byte, name string, text T) []byte {
	if len(text) == 0 {
		return b
	}
	return AppendText(appendName(b, name), string(text))
}

func appendFlag(b []byte, name string, flag bool) []byte {
	if !flag {
		return b
	}
	return append(appendName(b, name), "true"...)
}

func appendExact(b []byte, name string, x metering.Exact) []byte {
	if x.Sign() == 0 {
		return b
	}
	return appendString(b, name, x.String())
}

// appendKnown appends a number that may be 0, and is nil if it is not known.
func appendKnown(b []byte, name string, x *metering.Exact) []byte {
	if x == nil {
		return b
	}
	return appendString(b, name, x.String())
}

func appendQuantity(b []byte, name string, q metering.Quantity) []byte {
	if q.Sign() == 0 {
		return b
	}
	return appendString(b, name, q.String())
}

func appendExactTime(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return appendString(b, name, t.UTC().Format(time.RFC3339Nano))
}

func appendTexts[T ~string | ~[]byte](b []byte, name string, texts []T) []byte {
	if len(texts) == 0 {
		return b
	}
	b = append(appendName(b, name), '[')
	for i := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendText(b, string(texts[i]))
	}
	return append(b, ']')
}

func appendExacts(b []byte, name string, exacts map[string]metering.Exact) []byte {
	if len(exacts) == 0 {
		return b
	}
	b = append(appendName(b, name), '{')
	for _, key := range slices.Sorted(maps.Keys(exacts)) {
		b = AppendText(appendName(b, key), exacts[key].String())
	}
	return append(b, '}')
}

func textAs[T ~string | ~[]byte](d *decoder) (T, error) {
	text, err := d.text()
	return T(text), err
}

// oneOfTexts returns a reader of one of values.
func oneOfTexts[T ~string](values []T) func(*decoder) (T, error) {
	return func(d *decoder) (T, error) {
		text, err := d.text()
		if err == nil && !slices.Contains(values, T(text)) {
			err = d.errorf("is %s, which this version does not know", metering.Quote(text))
		}
		return T(text), err
	}
}

func (d *decoder) integer() (int, error) {
	text, err := d.number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, d.errorf("is %s: it must be an integer", text)
	}
	return n, nil
}

func (d *decoder) exact() (metering.Exact, error) {
	text, err := d.text()
	if err != nil {
		return metering.Exact{}, err
	}
	x, err := metering.ParseExact(text)
	if err != nil {
		return x, d.errorf("is unreadable: %v", err)
	}
	return x, nil
}

func (d *decoder) exactQuantity() (metering.Quantity, error) {
	text, err := d.text()
	if err != nil {
		return metering.Quantity{}, err
	}
	q, err := metering.ParseQuantity(text)
	if err != nil {
		return q, d.errorf("is unreadable: %v", err)
	}
	return q, nil
}

func (d *decoder) exacts() (map[string]metering.Exact, error) {
	exacts := map[string]metering.Exact{}
	err := d.object("an object of numbers", func(key string) (err error) {
		exacts[key], err = d.exact()
		return err
	})
	return exacts, err
}

// exactTime reads a time with all its digits.
func (d *decoder) exactTime() (time.Time, error) {
	text, err := d.text()
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.UTC().Format(time.RFC3339Nano) != text {
		return time.Time{}, d.errorf("is %s: it must be a time in UTC", metering.Quote(text))
	}
	return t.UTC(), nil
}

func (d *decoder) marketplaceIDs() (ids metering.MarketplaceIDs, err error) {
	err = readMembers(d, "identifiers of a marketplace, an object", metering.MarketplaceMembers, &ids, nil)
	return ids, err
}

func (d *decoder) aggregates() (map[string]metering.Quantity, error) {
	aggregates := map[string]metering.Quantity{}
	err := d.object("an object of quantities by metric", func(key string) (err error) {
		aggregates[key], err = d.quantity()
		return err
	})
	return aggregates, err
}

func (d *decoder) destinations() (map[string][]string, error) {
	destinations := map[string][]string{}
	texts := listOf("an array of dimensions", (*decoder).repeatedText)
	err := d.object("an object of dimensions by metric", func(key string) (err error) {
		destinations[key], err = texts(d)
		return err
	})
	return destinations, err
}
