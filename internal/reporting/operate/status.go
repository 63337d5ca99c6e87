package operate

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/table"
)

// Status is what waits to be reported, and what needs a person.
type Status struct {
	complete
	Now time.Time `json:"now"`
	// Stopped is why nothing is reported; empty if usage is reported.
	Stopped       string               `json:"stopped,omitempty"`
	Partners      []PartnerStatus      `json:"partners"`
	Pending       []PendingStatus      `json:"pending"`
	Organizations []OrganizationStatus `json:"organizations"`
	// DeadLetters are the messages in the dead-letter queues; absent if no queues are known.
	DeadLetters *int `json:"deadLetters,omitempty"`
}

// PartnerStatus is the oldest usage of a partner that is not settled.
type PartnerStatus struct {
	Partner      metering.Partner       `json:"partner"` // empty if the entitlement does not exist, or can't be read
	Oldest       time.Time              `json:"oldest"`  // the start of its hour
	Deadline     *time.Time             `json:"deadline,omitempty"`
	Organization metering.OrgID         `json:"organization"`
	Entitlement  metering.EntitlementID `json:"entitlement"`
	// Earliest is what has the earliest deadline of the partner: a cancellation brings it forward.
	// It is absent if that is the oldest usage.
	Earliest *EarliestStatus `json:"earliest,omitempty"`
}

// EarliestStatus is the usage of a partner that has the earliest deadline.
type EarliestStatus struct {
	Hour         time.Time              `json:"hour"`
	Deadline     time.Time              `json:"deadline"`
	Organization metering.OrgID         `json:"organization"`
	Entitlement  metering.EntitlementID `json:"entitlement"`
}

// PendingStatus is what a partner has refused, or may have billed, and is sent again.
type PendingStatus struct {
	Partner      metering.Partner `json:"partner"`
	Records      int              `json:"records"`
	Entitlements int              `json:"entitlements"`
	Oldest       []Pending        `json:"oldest"` // one of each entitlement; at most maxPending
}

// Pending is the oldest record of an entitlement that was sent and has no outcome yet. Its code and
// reason are of the last attempt.
type Pending struct {
	Organization metering.OrgID `json:"organization"`
	Trouble
	Attempts int `json:"attempts"`
	Records  int `json:"records"` // such records of the entitlement
}

// maxPending is of how many entitlements of each partner ReadStatus shows what is sent again.
const maxPending = 20

// OrganizationStatus counts the work of an organization, and names the records that are not billed.
type OrganizationStatus struct {
	Organization metering.OrgID `json:"organization"`

	Waiting      int `json:"waiting"`      // groups that are CREATED
	FailedGroups int `json:"failedGroups"` // of the last days, in a report or in none
	Open         int `json:"open"`         // hours, by their state
	Sealed       int `json:"sealed"`
	Decided      int `json:"decided"`
	Unreadable   int `json:"unreadable"` // of a newer version

	Failed    []Trouble `json:"failed"`
	Conflicts []Trouble `json:"conflicts"`
	Unknown   []Trouble `json:"unknown"`
}

// Trouble is a record that is REJECTED, CONFLICT or UNKNOWN, or part of a Pending.
type Trouble struct {
	Report      string                 `json:"report"`
	Entitlement metering.EntitlementID `json:"entitlement"`
	Hour        time.Time              `json:"hour"`
	Dimension   string                 `json:"dimension"`
	Quantity    string                 `json:"quantity"`
	Code        metering.ProblemCode   `json:"code"`
	Reason      string                 `json:"reason"`
}

// troubleFor is how far back ReadStatus looks for records that were rejected and groups that
// failed. CONFLICT and UNKNOWN are shown until they are resolved.
const troubleFor = 45 * 24 * time.Hour

// ReadStatus reads all work of the table, or of an organization, and the reports that have trouble.
// It makes a query for each place at which groups wait. An organization without work or trouble is
// shown only if it is asked for.
func ReadStatus(ctx context.Context, r *Request) (Result, error) {
	s, err := statusOf(ctx, r.Target.Table, r.Organization, r.Now())
	if err != nil {
		return nil, err
	}
	if q, known := queuesOf(r); known {
		letters, err := q.deadLetters(ctx)
		if err != nil {
			return nil, err
		}
		s.DeadLetters = &letters
	}
	return s, nil
}

func statusOf(ctx context.Context, tbl *table.Table, only metering.OrgID, now time.Time) (*Status, error) {
	s := &Status{Now: now.UTC().Truncate(time.Second)}
	var err error
	if s.Stopped, err = tbl.Stopped(ctx); err != nil {
		return nil, err
	}
	r := reading{tbl: tbl, only: only, waiting: map[reports.Place]int{}, troubled: map[reports.Place]bool{}}
	if err := r.work(ctx, now); err != nil {
		return nil, err
	}
	if r.hours, err = tbl.Hours(ctx, slices.Concat(slices.Collect(maps.Keys(r.waiting)), slices.Collect(maps.Keys(r.troubled)))); err != nil {
		return nil, err
	}
	if s.Organizations, err = r.organizations(ctx, now); err != nil {
		return nil, err
	}
	s.Pending = r.pending()
	s.Partners, err = r.partners(ctx)
	return s, err
}

// reading is what one ReadStatus has read.
type reading struct {
	tbl      *table.Table
	only     metering.OrgID         // empty: all
	waiting  map[reports.Place]int  // how many groups wait at each place with work
	troubled map[reports.Place]bool // settled hours whose records are not all ACCEPTED
	hours    map[reports.Place]*reports.Hour
}

// queriesAtOnce is how many queries ReadStatus makes at once.
const queriesAtOnce = 8

// endOfTime is after each hour.
var endOfTime = time.Date(9999, 12, 31, 23, 0, 0, 0, time.UTC)

func (r *reading) work(ctx context.Context, now time.Time) error {
	var places []reports.Place
	err := r.tbl.EachPlace(ctx, time.Time{}, endOfTime, func(p reports.Place) error {
		if r.reads(p) {
			places = append(places, p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	queries, within := errgroup.WithContext(ctx)
	queries.SetLimit(queriesAtOnce)
	for _, p := range places {
		queries.Go(func() error {
			ids, err := r.tbl.Waiting(within, p)
			mu.Lock()
			defer mu.Unlock()
			r.waiting[p] = len(ids)
			return err
		})
	}
	if err := queries.Wait(); err != nil {
		return err
	}
	err = r.tbl.EachSealed(ctx, func(_ string, _ time.Time, p reports.Place) error {
		if r.reads(p) {
			r.waiting[p] += 0 // a place with work
		}
		return nil
	})
	if err != nil {
		return err
	}
	return r.tbl.EachTroubled(ctx, now.Add(-troubleFor), func(p reports.Place) error {
		if r.reads(p) {
			r.troubled[p] = true
		}
		return nil
	})
}

func (r *reading) reads(p reports.Place) bool { return r.only == "" || p.Organization == r.only }

// organizations counts the work by organization.
func (r *reading) organizations(ctx context.Context, now time.Time) ([]OrganizationStatus, error) {
	by := map[metering.OrgID]*OrganizationStatus{}
	add := func(org metering.OrgID) *OrganizationStatus {
		if by[org] == nil {
			by[org] = &OrganizationStatus{Organization: org, Failed: []Trouble{}, Conflicts: []Trouble{}, Unknown: []Trouble{}}
		}
		return by[org]
	}
	of := func(p reports.Place) *OrganizationStatus { return add(p.Organization) }
	if r.only != "" {
		add(r.only)
	}
	for p, groups := range r.waiting {
		if of(p).Waiting += groups; groups == 0 && r.hours[p] == nil {
			of(p).Unreadable++
		}
	}
	for p, h := range r.hours {
		switch o := of(p); h.State {
		case reports.StateOpen:
			o.Open++
		case reports.StateSealed:
			o.Sealed++
		case reports.StateDecided:
			o.Decided++
		}
		if h.Sealed != nil {
			of(p).add(h)
		}
	}
	list := []OrganizationStatus{}
	for _, org := range slices.Sorted(maps.Keys(by)) {
		o := by[org]
		var err error
		if o.FailedGroups, err = r.tbl.CountFailed(ctx, org, metering.DayOf(now.Add(-troubleFor))); err != nil {
			return nil, err
		}
		for _, troubles := range [][]Trouble{o.Failed, o.Conflicts, o.Unknown} {
			slices.SortFunc(troubles, Trouble.compare)
		}
		list = append(list, *o)
	}
	return list, nil
}

// add adds the records of an hour that are not billed.
func (o *OrganizationStatus) add(h *reports.Hour) {
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		t := troubleOf(h, r, r.Outcome.Code, r.Outcome.Reason)
		switch r.Outcome.Kind {
		case reports.Rejected:
			o.Failed = append(o.Failed, t)
		case reports.Conflict:
			o.Conflicts = append(o.Conflicts, t)
		case reports.Unknown:
			o.Unknown = append(o.Unknown, t)
		}
	}
}

func troubleOf(h *reports.Hour, r *reports.Record, code metering.ProblemCode, reason string) Trouble {
	return Trouble{h.ID(), h.Entitlement, h.Start, r.Dimension, r.Quantity.String(), code, reason}
}

// compare orders troubles: the oldest first.
func (t Trouble) compare(u Trouble) int {
	return cmp.Or(t.Hour.Compare(u.Hour), cmp.Compare(t.Entitlement, u.Entitlement), cmp.Compare(t.Dimension, u.Dimension))
}

// why is the reason of a trouble for people.
func (t *Trouble) why() string { return cmp.Or(t.Reason, string(t.Code)) }

// pending returns what is sent again, by partner.
func (r *reading) pending() []PendingStatus {
	by := map[metering.Partner]map[reports.Place]*Pending{} // by entitlement: the places have no hour
	for _, h := range r.hours {
		if h.State != reports.StateSealed {
			continue
		}
		owner := reports.Place{Organization: h.Organization, Entitlement: h.Entitlement}
		for i := range h.Sealed.Records {
			record := &h.Sealed.Records[i]
			if record.Outcome.Kind != reports.Undecided || record.Attempted() == 0 {
				continue
			}
			if by[h.Sealed.Partner] == nil {
				by[h.Sealed.Partner] = map[reports.Place]*Pending{}
			}
			code, reason := record.Pending()
			p := Pending{h.Organization, troubleOf(h, record, code, reason), record.Attempted(), 1}
			if known := by[h.Sealed.Partner][owner]; known == nil {
				by[h.Sealed.Partner][owner] = &p
			} else if known.Records++; p.compare(known.Trouble) <= 0 {
				known.Trouble, known.Attempts = p.Trouble, p.Attempts
			}
		}
	}
	list := []PendingStatus{}
	for _, partner := range slices.Sorted(maps.Keys(by)) {
		s := PendingStatus{Partner: partner, Entitlements: len(by[partner])}
		for _, p := range by[partner] {
			s.Records += p.Records
			s.Oldest = append(s.Oldest, *p)
		}
		slices.SortFunc(s.Oldest, func(a, b Pending) int {
			return cmp.Or(a.Hour.Compare(b.Hour), cmp.Compare(a.Organization, b.Organization), cmp.Compare(a.Entitlement, b.Entitlement))
		})
		s.Oldest = s.Oldest[:min(len(s.Oldest), maxPending)]
		list = append(list, s)
	}
	return list
}

// partners returns the oldest usage of each partner, and that with the earliest deadline.
func (r *reading) partners(ctx context.Context) ([]PartnerStatus, error) {
	entitlements := map[metering.OrgID][]metering.EntitlementID{}
	for p := range r.waiting {
		entitlements[p.Organization] = append(entitlements[p.Organization], p.Entitlement)
	}
	terms := map[metering.OrgID]metering.TermsByEntitlement{}
	for org, ids := range entitlements {
		slices.Sort(ids)
		var err error
		if terms[org], _, err = reporting.ReadableTerms(ctx, r.tbl, org, slices.Compact(ids)); err != nil {
			return nil, err
		}
	}
	oldest, earliest := map[metering.Partner]PartnerStatus{}, map[metering.Partner]PartnerStatus{}
	for p := range r.waiting {
		s := partnerStatus(p, terms[p.Organization][p.Entitlement])
		if known, exists := oldest[s.Partner]; !exists || s.byHour(&known) < 0 {
			oldest[s.Partner] = s
		}
		if known, exists := earliest[s.Partner]; !exists || cmp.Or(s.byDeadline(&known), s.byHour(&known)) < 0 {
			earliest[s.Partner] = s
		}
	}
	list := []PartnerStatus{}
	for _, partner := range slices.Sorted(maps.Keys(oldest)) {
		s, first := oldest[partner], earliest[partner]
		if first.byDeadline(&s) < 0 {
			s.Earliest = &EarliestStatus{first.Oldest, *first.Deadline, first.Organization, first.Entitlement}
		}
		list = append(list, s)
	}
	return list, nil
}

// partnerStatus is of one place.
func partnerStatus(p reports.Place, terms *metering.Terms) PartnerStatus {
	s := PartnerStatus{Oldest: p.Hour, Organization: p.Organization, Entitlement: p.Entitlement}
	if terms != nil && terms.Entitlement != nil {
		s.Partner = terms.Entitlement.Partner
		if deadline := metering.WindowOf(s.Partner, p.Hour, terms.Entitlement.CancelTime).End; !deadline.IsZero() {
			s.Deadline = &deadline
		}
	}
	return s
}

// byHour orders the usage of a partner: by hour, then by deadline, then by name.
func (s *PartnerStatus) byHour(t *PartnerStatus) int {
	return cmp.Or(s.Oldest.Compare(t.Oldest), s.byDeadline(t),
		cmp.Compare(s.Organization, t.Organization), cmp.Compare(s.Entitlement, t.Entitlement))
}

// byDeadline orders by deadline. One that is not known is the last.
func (s *PartnerStatus) byDeadline(t *PartnerStatus) int {
	deadline := func(s *PartnerStatus) time.Time {
		if s.Deadline == nil {
			return endOfTime
		}
		return *s.Deadline
	}
	return deadline(s).Compare(deadline(t))
}

// WriteText writes the status for people.
func (s *Status) WriteText(w io.Writer) error {
	var text strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&text, format+"\n", a...) }
	if s.Stopped != "" {
		line("Nothing is reported: %s", s.Stopped)
	}
	if len(s.Partners) == 0 {
		line("No usage waits to be reported.")
	}
	for i := range s.Partners {
		p := &s.Partners[i]
		line("%s: the oldest usage that is not settled is of %s: organization %s, entitlement %s; %s",
			cmp.Or(string(p.Partner), "no partner"), at(p.Oldest), metering.Quote(p.Organization), metering.Quote(p.Entitlement), due(p.Deadline, s.Now))
		if e := p.Earliest; e != nil {
			line("%s: the earliest deadline is of usage of %s: organization %s, entitlement %s; %s",
				p.Partner, at(e.Hour), metering.Quote(e.Organization), metering.Quote(e.Entitlement), due(&e.Deadline, s.Now))
		}
	}
	for i := range s.Pending {
		p := &s.Pending[i]
		line("%s: records that were refused or may be billed, and are sent again: %d, of %d entitlements; the oldest:", p.Partner, p.Records, p.Entitlements)
		for _, r := range p.Oldest {
			line("  organization %s, entitlement %s: %d records; report %s, dimension %s: %s, %s: attempts %d, code %s: %s", metering.Quote(r.Organization),
				metering.Quote(r.Entitlement), r.Records, r.Report, metering.Quote(r.Dimension), r.Quantity, at(r.Hour), r.Attempts,
				cmp.Or(string(r.Code), "none"), r.why())
		}
	}
	for i := range s.Organizations {
		o := &s.Organizations[i]
		line("Organization %s: groups waiting %d, failed %d; hours open %d, sealed %d, decided %d, of a newer version %d; records failed %d, conflicts %d, unknown %d",
			metering.Quote(o.Organization), o.Waiting, o.FailedGroups, o.Open, o.Sealed, o.Decided, o.Unreadable, len(o.Failed), len(o.Conflicts), len(o.Unknown))
		for _, of := range []struct {
			kind     reports.Kind
			troubles []Trouble
		}{{reports.Rejected, o.Failed}, {reports.Conflict, o.Conflicts}, {reports.Unknown, o.Unknown}} {
			for _, t := range of.troubles {
				line("  %s: report %s, dimension %s: %s of entitlement %s, %s: %s", of.kind, t.Report, metering.Quote(t.Dimension),
					t.Quantity, metering.Quote(t.Entitlement), at(t.Hour), t.why())
			}
		}
	}
	if s.DeadLetters != nil {
		line("Dead letters: %d", *s.DeadLetters)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// due says how long usage with the deadline can still be reported.
func due(deadline *time.Time, now time.Time) string {
	switch {
	case deadline == nil:
		return "its deadline is not known"
	case !now.Before(*deadline):
		return "its deadline was " + at(*deadline)
	default:
		return fmt.Sprintf("its deadline is %s, in %v", at(*deadline), deadline.Sub(now).Truncate(time.Minute))
	}
}
