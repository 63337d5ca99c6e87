package metering

import (
	"slices"
	"time"
)

// Kind is the type of a member. Beside each stands the type of the value that Member.Set takes.
type Kind int

// The kinds of members.
const (
	KindText            Kind = iota // string
	KindTime                        // time.Time
	KindAmount                      // Number
	KindCount                       // int32
	KindFlag                        // bool
	KindQuantity                    // Quantity
	KindQuantities                  // map[string]Quantity
	KindProperties                  // map[string]any, a document
	KindBillableRecords             // []BillableRecord
	KindMetaInfo                    // MetaInfo
)

// Member is a member of O: a Group, a MetaInfo or a BillableRecord. The lists GroupMembers,
// MetaInfoMembers and BillableMembers drive all that reads and writes these objects: stored items,
// the copier of lists, the API's JSON, import and export, and the stored size. A new member is a
// field of the struct and an entry of its list.
type Member[O any] struct {
	Name string // in the API's JSON, in a stored item and in a CSV file
	Kind Kind

	Required bool // in every stored object; without it an item can't be read
	Imported bool // required in a line of an import
	Private  bool // stored and exported, never returned by the API

	Values []string           // of a text, those that an import accepts; nil for any
	Check  func(string) error // of a text, what an import accepts; nil for any

	field access[O]
}

// Get returns the value of the member in o, nil if it is absent: of the type beside its Kind, or as
// a document holds it.
func (m *Member[O]) Get(o *O) any { return m.field.get(o) }

// Set sets the member in o to a value of the type beside its Kind.
func (m *Member[O]) Set(o *O, value any) { m.field.set(o, value) }

// Droppable reports whether a reader leaves the member out if it can't read it, because a newer
// version may have stored it in another form. A billable record without its properties would say
// another thing, so they are not droppable.
func (m *Member[O]) Droppable() bool { return !m.Required && m.Kind != KindProperties }

// MemberNamed returns the member of that name, nil if none of members has it.
func MemberNamed[O any](members []Member[O], name string) *Member[O] {
	for i := range members {
		if members[i].Name == name {
			return &members[i]
		}
	}
	return nil
}

// access reads and writes a field of O. get returns nil for a field that is absent.
type access[O any] struct {
	get func(*O) any
	set func(*O, any)
}

// required is a field that is never absent.
func required[O, T any](field func(*O) *T) access[O] {
	return access[O]{
		get: func(o *O) any { return *field(o) },
		set: func(o *O, value any) { *field(o) = value.(T) },
	}
}

// text is a field of any type of strings that is never absent.
func text[O any, S ~string](field func(*O) *S) access[O] {
	return access[O]{
		get: func(o *O) any { return string(*field(o)) },
		set: func(o *O, value any) { *field(o) = S(value.(string)) },
	}
}

// optional is a field that is absent if isAbsent reports so.
func optional[O, T any](field func(*O) *T, isAbsent func(T) bool) access[O] {
	a := required(field)
	a.get = func(o *O) any {
		value := *field(o)
		if isAbsent(value) {
			return nil
		}
		return value
	}
	return a
}

func isEmpty[S ~string](s S) bool { return s == "" }

func isNilMap[V any](m map[string]V) bool { return m == nil }

func isNilSlice[E any](s []E) bool { return s == nil }

// pointer is a field that is absent if it is nil.
func pointer[O, T any](field func(*O) **T) access[O] {
	return access[O]{
		get: func(o *O) any {
			if p := *field(o); p != nil {
				return *p
			}
			return nil
		},
		set: func(o *O, value any) { v := value.(T); *field(o) = &v },
	}
}

func texts[S ~string](values []S) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}

// GroupMembers are the members of a group, in the order of the columns of an export.
var GroupMembers = []Member[Group]{
	{Name: "id", Required: true, Imported: true, Check: CheckGroupID, field: text(func(g *Group) *string { return &g.ID })},
	{Name: "organizationID", Required: true, field: text(func(g *Group) *string { return &g.OrganizationID })},
	{Name: "buyerID", Required: true, Imported: true, Check: CheckBuyerID, field: text(func(g *Group) *string { return &g.BuyerID })},
	{Name: "entitlementID", Required: true, Imported: true, Check: CheckEntitlementID, field: text(func(g *Group) *string { return &g.EntitlementID })},
	{Name: "productID", Private: true, Check: CheckProductID, field: optional(func(g *Group) *string { return &g.ProductID }, isEmpty)},
	{Name: "partner", Required: true, Imported: true, Values: texts(Partners), field: text(func(g *Group) *Partner { return &g.Partner })},
	{Name: "status", Required: true, Imported: true, Values: texts(Statuses), field: text(func(g *Group) *Status { return &g.Status })},
	{Name: "records", Kind: KindQuantities, Required: true, field: required(func(g *Group) *map[string]Quantity { return &g.Records })},
	{Name: "metaInfo", Kind: KindMetaInfo, Required: true, field: required(func(g *Group) *MetaInfo { return &g.MetaInfo })},
	{Name: "serialID", Kind: KindCount, Required: true, field: required(func(g *Group) *int32 { return &g.SerialID })},
	{Name: "usageRecordReportID", Required: true, field: text(func(g *Group) *string { return &g.UsageRecordReportID })},
	{Name: "creationTime", Kind: KindTime, Required: true, Imported: true, field: required(func(g *Group) *time.Time { return &g.CreationTime })},
	{Name: "lastUpdateTime", Kind: KindTime, Required: true, field: required(func(g *Group) *time.Time { return &g.LastUpdateTime })},
	{Name: "reportedTime", Kind: KindTime, field: optional(func(g *Group) *time.Time { return &g.ReportedTime }, time.Time.IsZero)},
}

// MetaInfoMembers are the members of a metaInfo, CarriedMembers among them.
var MetaInfoMembers = append(carriedMembers(),
	Member[MetaInfo]{Name: "SkipValidation", Kind: KindFlag, field: pointer(func(m *MetaInfo) **bool { return &m.SkipValidation })},
	Member[MetaInfo]{Name: "source", Values: texts(Sources), field: access[MetaInfo]{
		get: func(m *MetaInfo) any {
			if m.Source == nil {
				return nil
			}
			return string(*m.Source)
		},
		set: func(m *MetaInfo, value any) { source := Source(value.(string)); m.Source = &source },
	}},
	Member[MetaInfo]{Name: "timestamp", Kind: KindTime, field: pointer(func(m *MetaInfo) **time.Time { return &m.Timestamp })},
	Member[MetaInfo]{Name: "originRecords", Kind: KindQuantities, field: optional(func(m *MetaInfo) *map[string]Quantity { return &m.OriginRecords }, isNilMap)},
	Member[MetaInfo]{Name: "billableRecords", Kind: KindBillableRecords, field: optional(func(m *MetaInfo) *[]BillableRecord { return &m.BillableRecords }, isNilSlice)},
)

// BillableMembers are the members of a billable record.
var BillableMembers = []Member[BillableRecord]{
	{Name: "key", Required: true, field: text(func(r *BillableRecord) *string { return &r.Key })},
	{Name: "quantity", Kind: KindQuantity, Required: true, field: required(func(r *BillableRecord) *Quantity { return &r.Quantity })},
	{Name: "properties", Kind: KindProperties, field: optional(func(r *BillableRecord) *map[string]any { return &r.Properties }, isNilMap)},
}

// CarriedMember is a metaInfo member that an integration writes and reads back; the service only
// checks its type, since one member of the wrong type makes a strict client drop a whole page.
type CarriedMember struct {
	Name string
	Kind Kind
}

// CarriedMembers are all of them, by name (API reference: metaInfo).
var CarriedMembers = []CarriedMember{
	{"lagoAmount", KindAmount},
	{"lagoSubscriptionID", KindText},
	{"lagoUsageStartTime", KindTime},
	{"metronomeDailyCostAmount", KindAmount},
	{"metronomeInvoiceID", KindText},
	{"metronomeMonthlyInvoiceAmount", KindAmount},
	{"metronomeMonthlyInvoiceAmountAdjusted", KindAmount},
	{"stripeInvoiceID", KindText},
	{"stripePeriodEndTime", KindTime},
	{"stripePeriodStartTime", KindTime},
	{"stripeSubscriptionItemID", KindText},
	{"stripeUsageRecordSummaryID", KindText},
	{"stripeUsageRecordSummaryTotalUsage", KindCount},
}

// Carry sets the member in carried, which it makes if it is nil, to a value of the type beside its
// Kind. What is carried is a document: a time becomes text and a count a Number.
func (m CarriedMember) Carry(carried *map[string]any, value any) {
	if *carried == nil {
		*carried = map[string]any{}
	}
	(*carried)[m.Name] = documentOf(value, false)
}

func carriedMembers() []Member[MetaInfo] {
	members := make([]Member[MetaInfo], len(CarriedMembers))
	for i, m := range CarriedMembers {
		members[i] = Member[MetaInfo]{Name: m.Name, Kind: m.Kind, field: access[MetaInfo]{
			get: func(meta *MetaInfo) any { return meta.Carried[m.Name] },
			set: func(meta *MetaInfo, value any) { m.Carry(&meta.Carried, value) },
		}}
	}
	return slices.Clip(members)
}
