package wire

import (
	"bytes"
	"encoding/base64"
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
// Each object has one list of its members, by which it is read and written.

// storedForm is the version of the form. A change that this version would misunderstand needs the
// next one.
const storedForm = 1

// hourPart is a part of the records of an hour.
type hourPart struct {
	stored
	sealed  *reports.Sealed
	records []reports.Record
}

var storedPart = layout[hourPart]{"records of an hour, an object", []part[hourPart]{
	{"form", func(p *hourPart) any { return &p.form }},
	{"sealed", func(p *hourPart) any { return &p.sealed }},
	{"records", func(p *hourPart) any { return &p.records }},
}}

// AppendStoredRecords appends some of the records of a sealed hour, as the table stores them. The
// first of its parts also has what else is sealed; sealed is nil in the others.
func AppendStoredRecords(b []byte, sealed *reports.Sealed, records []reports.Record) []byte {
	return storedPart.append(b, &hourPart{asStored, sealed, records})
}

// DecodeStoredRecords reads what AppendStoredRecords has written.
func DecodeStoredRecords(text []byte) (sealed *reports.Sealed, records []reports.Record, err error) {
	p, err := decodeHour(text, storedPart)
	return p.sealed, p.records, err
}

type ledger struct {
	stored
	reports.Ledger
}

var storedLedger = layout[ledger]{"a ledger, an object", []part[ledger]{
	{"form", func(l *ledger) any { return &l.form }},
	{"version", func(l *ledger) any { return &l.Version }},
	{"used", func(l *ledger) any { return &l.Used }},
	{"carry", func(l *ledger) any { return &l.Carry }},
}}

// AppendStoredLedger appends a ledger as the table stores it.
func AppendStoredLedger(b []byte, l *reports.Ledger) []byte {
	return storedLedger.append(b, &ledger{asStored, *l})
}

// DecodeStoredLedger reads what AppendStoredLedger has written.
func DecodeStoredLedger(text []byte) (reports.Ledger, error) {
	l, err := decodeHour(text, storedLedger)
	return l.Ledger, err
}

// candidates are the ids of a list of candidates.
type candidates struct {
	stored
	ids []metering.GroupID
}

var storedCandidates = layout[candidates]{"a list of candidates, an object", []part[candidates]{
	{"form", func(c *candidates) any { return &c.form }},
	{"ids", func(c *candidates) any { return &c.ids }},
}}

// AppendStoredCandidates appends the ids of a list of candidates as the table stores them.
func AppendStoredCandidates(b []byte, ids []metering.GroupID) []byte {
	return storedCandidates.append(b, &candidates{asStored, ids})
}

// DecodeStoredCandidates reads what AppendStoredCandidates has written.
func DecodeStoredCandidates(text []byte) ([]metering.GroupID, error) {
	c, err := decodeHour(text, storedCandidates)
	return c.ids, err
}

// sumOfList is the sum of a list of candidates.
type sumOfList struct {
	stored
	reports.Sum
}

var storedSum = layout[sumOfList]{"a sum, an object", []part[sumOfList]{
	{"form", func(s *sumOfList) any { return &s.form }},
	{"members", func(s *sumOfList) any { return &s.Members }},
	{"absent", func(s *sumOfList) any { return &s.Absent }},
	{"totals", func(s *sumOfList) any { return &s.Totals }},
	{"billable", func(s *sumOfList) any { return &s.Billable }},
}}

// AppendStoredSum appends the sum of a list of candidates as the table stores it.
func AppendStoredSum(b []byte, s *reports.Sum) []byte {
	return storedSum.append(b, &sumOfList{asStored, *s})
}

// DecodeStoredSum reads what AppendStoredSum has written.
func DecodeStoredSum(text []byte) (*reports.Sum, error) {
	s, err := decodeHour(text, storedSum)
	if err != nil {
		return nil, err
	}
	return &s.Sum, nil
}

// billable is what the members with billable records of a list used.
type billable struct {
	stored
	reports.Billable
}

var storedBillable = layout[billable]{"billable records, an object", []part[billable]{
	{"form", func(b *billable) any { return &b.form }},
	{"aggregates", func(b *billable) any { return &b.Aggregates }},
	{"records", func(b *billable) any { return &b.Records }},
	{"destinations", func(b *billable) any { return &b.Destinations }},
}}

var storedPartial = layout[metering.PartialAggregate]{"a partial aggregate, an object", []part[metering.PartialAggregate]{
	{"count", func(a *metering.PartialAggregate) any { return &a.Count }},
	{"sum", func(a *metering.PartialAggregate) any { return &a.Sum }},
	{"max", func(a *metering.PartialAggregate) any { return &a.Max }},
	{"last", func(a *metering.PartialAggregate) any { return &a.Last }},
	{"used", func(a *metering.PartialAggregate) any { return &a.At.Used }},
	{"created", func(a *metering.PartialAggregate) any { return &a.At.Created }},
	{"group", func(a *metering.PartialAggregate) any { return &a.At.ID }},
	{"uniqueOn", func(a *metering.PartialAggregate) any { return &a.UniqueOn }},
	{"distinct", func(a *metering.PartialAggregate) any { return &a.Distinct }},
}}

// AppendStoredBillable appends what the members with billable records of a list used, as the table
// stores it.
func AppendStoredBillable(to []byte, b *reports.Billable) []byte {
	return storedBillable.append(to, &billable{asStored, *b})
}

// DecodeStoredBillable reads what AppendStoredBillable has written. What is empty is nil in it.
func DecodeStoredBillable(text []byte) (*reports.Billable, error) {
	b, err := decodeHour(text, storedBillable)
	return &b.Billable, err
}

// callsOfStep are the calls of a step. Requests and responses are strings, so that their bytes stay
// as they are.
type callsOfStep struct {
	stored
	calls []reports.StoredCall
}

var storedCall = layout[reports.StoredCall]{"a call, an object", []part[reports.StoredCall]{
	{"time", func(c *reports.StoredCall) any { return &c.Time }},
	{"status", func(c *reports.StoredCall) any { return &c.Status }},
	{"requestID", func(c *reports.StoredCall) any { return &c.RequestID }},
	{"correlationID", func(c *reports.StoredCall) any { return &c.CorrelationID }},
	{"request", func(c *reports.StoredCall) any { return &c.Request }},
	{"responses", func(c *reports.StoredCall) any { return &c.Responses }},
}}

var storedCalls = layout[callsOfStep]{"calls, an object", []part[callsOfStep]{
	{"form", func(a *callsOfStep) any { return &a.form }},
	{"calls", func(a *callsOfStep) any { return &a.calls }},
}}

// AppendStoredCalls appends calls as the table stores them.
func AppendStoredCalls(b []byte, calls []reports.StoredCall) []byte {
	return storedCalls.append(b, &callsOfStep{asStored, calls})
}

// DecodeStoredCalls reads what AppendStoredCalls has written.
func DecodeStoredCalls(text []byte) ([]reports.StoredCall, error) {
	a, err := decodeHour(text, storedCalls)
	return a.calls, err
}

// stored is what each stored object begins with.
type stored struct{ form int }

// asStored is what this version begins an object with.
var asStored = stored{storedForm}

func (s stored) check() error {
	if s.form != storedForm {
		return fmt.Errorf("form is %d: it must be %d", s.form, storedForm)
	}
	return nil
}

// decodeHour reads a stored object of an hour.
func decodeHour[O interface{ check() error }](text []byte, l layout[O]) (O, error) {
	value, err := decode(text, l.value)
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

var storedSealed = layout[reports.Sealed]{"what is sealed, an object", []part[reports.Sealed]{
	{"from", func(s *reports.Sealed) any { return &s.From }},
	{"to", func(s *reports.Sealed) any { return &s.To }},
	{"partner", func(s *reports.Sealed) any { return (*string)(&s.Partner) }},
	// Without what another version knows of them: this one has not sent it.
	{"marketplace", func(s *reports.Sealed) any { return &s.Marketplace }},
	{"buyer", func(s *reports.Sealed) any { return (*string)(&s.Buyer) }},
	{"product", func(s *reports.Sealed) any { return (*string)(&s.Product) }},
	{"lane", func(s *reports.Sealed) any { return &s.Lane }},
	{"groups", func(s *reports.Sealed) any { return &s.Groups }},
	{"config", func(s *reports.Sealed) any { return &s.Config }},
	{"entitlement", func(s *reports.Sealed) any { return &s.Entitlement }},
	{"commitAmount", func(s *reports.Sealed) any { return &s.CommitAmount }},
	{"usedCommit", func(s *reports.Sealed) any { return &s.UsedCommit }},
	{"aggregates", func(s *reports.Sealed) any { return &s.Aggregates }},
	{"destinations", func(s *reports.Sealed) any { return &s.Destinations }},
}}

var storedRecord = layout[reports.Record]{"a record, an object", []part[reports.Record]{
	{"dimension", func(r *reports.Record) any { return &r.Dimension }},
	{"members", func(r *reports.Record) any { return &r.Members }},
	{"quantity", func(r *reports.Record) any { return &r.Quantity }},
	{"carryIn", func(r *reports.Record) any { return &r.CarryIn }},
	{"carryOut", func(r *reports.Record) any { return &r.CarryOut }},
	{"drawn", func(r *reports.Record) any { return &r.Drawn }},
	{"drawnAmount", func(r *reports.Record) any { return &r.DrawnAmount }},
	{"unitPrice", func(r *reports.Record) any { return &r.UnitPrice }},
	{"listPrice", func(r *reports.Record) any { return &r.ListPrice }},
	{"scale", func(r *reports.Record) any { return &r.Scale }},
	{"attempts", func(r *reports.Record) any { return &r.Attempts }},
	{"outcome", func(r *reports.Record) any { return &r.Outcome }},
}}

var storedAttempt = layout[reports.Attempt]{"an attempt, an object", []part[reports.Attempt]{
	{"number", func(a *reports.Attempt) any { return &a.Number }},
	{"time", func(a *reports.Attempt) any { return &a.Time }},
	{"result", func(a *reports.Attempt) any { return &a.Result }},
	{"receipt", func(a *reports.Attempt) any { return &a.Receipt }},
	{"code", func(a *reports.Attempt) any { return (*string)(&a.Code) }},
	{"reason", func(a *reports.Attempt) any { return &a.Reason }},
	{"again", func(a *reports.Attempt) any { return &a.Again }},
	{"lane", func(a *reports.Attempt) any { return &a.Lane }},
	{"accepted", func(a *reports.Attempt) any { return &a.Accepted }},
	{"acceptedAt", func(a *reports.Attempt) any { return &a.AcceptedAt }},
}}

var storedOutcome = layout[reports.Outcome]{"an outcome, an object", []part[reports.Outcome]{
	{"kind", func(o *reports.Outcome) any { return &o.Kind }},
	{"evidence", func(o *reports.Outcome) any { return &o.Evidence }},
	{"receipt", func(o *reports.Outcome) any { return &o.Receipt }},
	{"code", func(o *reports.Outcome) any { return (*string)(&o.Code) }},
	{"reason", func(o *reports.Outcome) any { return &o.Reason }},
	{"difference", func(o *reports.Outcome) any { return &o.Difference }},
	{"by", func(o *reports.Outcome) any { return &o.By }},
	{"at", func(o *reports.Outcome) any { return &o.At }},
}}

// layout is a stored object: its members, by which it is read and written.
type layout[O any] struct {
	due   string // what the object is, for messages
	parts []part[O]
}

// part is a member: a pointer to its field, whose type says how it is spelled.
type part[O any] struct {
	name  string
	field func(o *O) any
}

// value reads the object. A null leaves a field as it is.
func (l layout[O]) value(d *decoder) (o O, err error) {
	err = d.object(l.due, func(name string) error {
		for i := range l.parts {
			switch p := &l.parts[i]; {
			case p.name != name:
			case d.null():
				return nil
			default:
				return d.storedInto(p.field(&o))
			}
		}
		return d.unknown(name, namesOf(l.parts, func(p *part[O]) string { return p.name }))
	})
	return o, err
}

// append appends the object.
func (l layout[O]) append(b []byte, o *O) []byte {
	b = append(b, '{')
	for i := range l.parts {
		b = appendStored(b, l.parts[i].name, l.parts[i].field(o))
	}
	return append(b, '}')
}

// storedInto reads a value into a field.
func (d *decoder) storedInto(field any) (err error) {
	switch field := field.(type) {
	case *int:
		*field, err = d.integer()
	case *bool:
		*field, err = d.boolean()
	case *string:
		*field, err = d.text()
	case *[]byte:
		*field, err = textAs[[]byte](d)
	case *reports.Result:
		*field, err = knownText(d, reports.Results)
	case *reports.Kind:
		*field, err = knownText(d, reports.Kinds)
	case *reports.Evidence:
		*field, err = knownText(d, reports.Evidences)
	case *time.Time:
		*field, err = d.exactTime()
	case *metering.Exact:
		*field, err = d.exact()
	case **metering.Exact:
		*field, err = pointer((*decoder).exact)(d)
	case *metering.Quantity:
		*field, err = d.exactQuantity()
	case *map[string]metering.Exact:
		*field, err = d.exacts()
	case *metering.Aggregates:
		*field, err = byKey(d, "an object of numbers by metric", (*decoder).exactNumber)
	case *map[string][]string:
		*field, err = d.destinations()
	case *metering.PartialAggregates:
		*field, err = d.partialAggregates()
	case *map[metering.ValueHash]struct{}:
		*field, err = d.hashes()
	case *metering.MarketplaceIDs:
		*field, err = d.marketplaceIDs()
	case *[]metering.GroupID:
		*field, err = listOf("an array of ids", textAs[metering.GroupID])(d)
	case *[][]byte:
		*field, err = listOf("an array of responses", textAs[[]byte])(d)
	case *[]reports.Record:
		*field, err = listOf("an array of records", storedRecord.value)(d)
	case *[]reports.Attempt:
		*field, err = listOf("an array of attempts", storedAttempt.value)(d)
	case *[]reports.StoredCall:
		*field, err = listOf("an array of calls", storedCall.value)(d)
	case *reports.Outcome:
		*field, err = storedOutcome.value(d)
	case **reports.Sealed:
		*field, err = pointer(storedSealed.value)(d)
	default:
		panic(fmt.Sprintf("wire: a %T can't be read", field))
	}
	return err
}

// appendStored appends the value of a field as a member, unless it is zero. Lists of records and of
// calls, and the identifiers of the marketplace, are always appended.
func appendStored(b []byte, name string, field any) []byte {
	switch field := field.(type) {
	case *int:
		return appendInteger(b, name, *field)
	case *bool:
		return appendFlag(b, name, *field)
	case *string:
		return appendString(b, name, *field)
	case *[]byte:
		return appendString(b, name, *field)
	case *reports.Result:
		return appendString(b, name, *field)
	case *reports.Kind:
		return appendString(b, name, *field)
	case *reports.Evidence:
		return appendString(b, name, *field)
	case *time.Time:
		return appendExactTime(b, name, *field)
	case *metering.Exact:
		return appendExact(b, name, *field)
	case **metering.Exact:
		return appendKnown(b, name, *field)
	case *metering.Quantity:
		return appendQuantity(b, name, *field)
	case *map[string]metering.Exact:
		return appendExacts(b, name, *field)
	case *metering.Aggregates:
		return appendByKey(b, name, *field, func(b []byte, x metering.Exact) []byte { return append(b, x.String()...) })
	case *map[string][]string:
		return appendDestinations(b, name, *field)
	case *metering.PartialAggregates:
		return appendPartialAggregates(b, name, *field)
	case *map[metering.ValueHash]struct{}:
		return appendHashes(b, name, *field)
	case *metering.MarketplaceIDs:
		// Without what another version knows of them: this one has not sent it.
		return appendMembers(appendName(b, name), metering.MarketplaceMembers, field, nil)
	case *[]metering.GroupID:
		return appendTexts(b, name, *field)
	case *[][]byte:
		return appendTexts(b, name, *field)
	case *[]reports.Record:
		return appendObjects(b, name, storedRecord, *field)
	case *[]reports.Attempt:
		if len(*field) == 0 {
			return b
		}
		return appendObjects(b, name, storedAttempt, *field)
	case *[]reports.StoredCall:
		return appendObjects(b, name, storedCall, *field)
	case *reports.Outcome:
		if *field == (reports.Outcome{}) {
			return b
		}
		return storedOutcome.append(appendName(b, name), field)
	case **reports.Sealed:
		if *field == nil {
			return b
		}
		return storedSealed.append(appendName(b, name), *field)
	default:
		panic(fmt.Sprintf("wire: a %T can't be written", field))
	}
}

func appendObjects[O any](b []byte, name string, l layout[O], list []O) []byte {
	b = append(appendName(b, name), '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = l.append(b, &list[i])
	}
	return append(b, ']')
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

// appendByKey appends an object of values by key, unless it is empty.
func appendByKey[V any](b []byte, name string, values map[string]V, value func(b []byte, v V) []byte) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(appendName(b, name), '{')
	for _, key := range slices.Sorted(maps.Keys(values)) {
		b = value(appendName(b, key), values[key])
	}
	return append(b, '}')
}

func appendExacts(b []byte, name string, exacts map[string]metering.Exact) []byte {
	return appendByKey(b, name, exacts, func(b []byte, x metering.Exact) []byte { return AppendText(b, x.String()) })
}

func appendDestinations(b []byte, name string, destinations map[string][]string) []byte {
	return appendByKey(b, name, destinations, func(b []byte, dimensions []string) []byte { return appendValue(b, dimensions) })
}

func appendPartialAggregates(b []byte, name string, aggregates metering.PartialAggregates) []byte {
	return appendByKey(b, name, aggregates, func(b []byte, of metering.PartialAggregate) []byte { return storedPartial.append(b, &of) })
}

// appendHashes appends hashes as one text: 21 or 22 characters for each.
func appendHashes(b []byte, name string, hashes map[metering.ValueHash]struct{}) []byte {
	all := make([]byte, 0, len(hashes)*len(metering.ValueHash{}))
	for _, hash := range slices.SortedFunc(maps.Keys(hashes), func(x, y metering.ValueHash) int { return bytes.Compare(x[:], y[:]) }) {
		all = append(all, hash[:]...)
	}
	return appendString(b, name, base64.RawStdEncoding.AppendEncode(nil, all))
}

func textAs[T ~string | ~[]byte](d *decoder) (T, error) {
	text, err := d.text()
	return T(text), err
}

// knownText reads a text that must be one of those that this version knows.
func knownText[T ~string](d *decoder, values []T) (T, error) {
	text, err := textAs[T](d)
	if err == nil && !slices.Contains(values, text) {
		err = d.errorf("is %s, which this version does not know", metering.Quote(text))
	}
	return text, err
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
	return d.exactOf(text, err)
}

// exactNumber reads a number that is a decimal.
func (d *decoder) exactNumber() (metering.Exact, error) {
	text, err := d.number()
	return d.exactOf(text, err)
}

func (d *decoder) exactOf(text string, err error) (metering.Exact, error) {
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

// byKey reads an object of values by key, which is called what in errors.
func byKey[V any](d *decoder, what string, value func(*decoder) (V, error)) (map[string]V, error) {
	values := map[string]V{}
	err := d.object(what, func(key string) (err error) {
		values[key], err = value(d)
		return err
	})
	return values, err
}

func (d *decoder) exacts() (map[string]metering.Exact, error) {
	return byKey(d, "an object of numbers", (*decoder).exact)
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

func (d *decoder) partialAggregates() (metering.PartialAggregates, error) {
	return byKey(d, "an object of what each metric's records come to", storedPartial.value)
}

func (d *decoder) hashes() (map[metering.ValueHash]struct{}, error) {
	text, err := d.text()
	if err != nil {
		return nil, err
	}
	all, err := base64.RawStdEncoding.Strict().DecodeString(text)
	const size = len(metering.ValueHash{})
	if err != nil || len(all)%size != 0 {
		return nil, d.errorf("is no list of hashes in base64")
	}
	hashes := make(map[metering.ValueHash]struct{}, len(all)/size)
	for hash := range slices.Chunk(all, size) {
		hashes[metering.ValueHash(hash)] = struct{}{}
	}
	return hashes, nil
}

func (d *decoder) marketplaceIDs() (ids metering.MarketplaceIDs, err error) {
	err = readMembers(d, "identifiers of a marketplace, an object", metering.MarketplaceMembers, &ids, nil)
	return ids, err
}

func (d *decoder) destinations() (map[string][]string, error) {
	return byKey(d, "an object of dimensions by metric", listOf("an array of dimensions", (*decoder).repeatedText))
}
