package metering

import "reflect"

// Kind is the type of a member. Beside each kind is the type of the value that Member.Set accepts.
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
	KindProblems                    // []Problem
	KindEntitlementInfo             // EntitlementInfo
	KindDimensions                  // []Dimension
	KindMarketplaceIDs              // MarketplaceIDs
	KindMetricInfo                  // MetricInfo
	KindFilterGroups                // []FilterGroup
	KindMetricFilters               // []MetricFilter
	KindTexts                       // []string
	KindDocument                    // any document but null
)

// Member is a member of O: an object of the API that is stored, or a part of one. The list of its
// members, such as GroupMembers, drives all code that reads and writes the object: stored items,
// the copier of lists, the API's JSON, import and export, and the stored size. A new member is a
// field of the struct and an entry of its list.
type Member[O any] struct {
	Name string // in the API's JSON, in a stored item and in a CSV file
	Kind Kind

	Required bool // in every stored object; without it an item can't be read
	Imported bool // required in a line of an import
	Private  bool // stored and exported, never returned by the API

	Values func() []string    // of a text, those that an import accepts; nil for any
	Check  func(string) error // of a text, what an import accepts; nil for any

	// field returns a pointer to the member's field in o, or to Carried if the member is carried.
	// The lists hold functions, not values, so that the linker drops them from a program that reads
	// no groups.
	field func(o *O) any
}

// Get returns the value of the member in o, or nil if it is absent. The value has the type beside
// the member's Kind or, if the member is carried, the type that a document has for it.
func (m *Member[O]) Get(o *O) any {
	field := m.field(o)
	switch field := field.(type) { // the common types, without reflection
	case *string:
		if *field == "" && !m.Required {
			return nil
		}
		return *field
	case *Quantity:
		if *field == (Quantity{}) && !m.Required {
			return nil
		}
		return *field
	}
	if carried := m.carried(field); carried != nil {
		return (*carried)[m.Name]
	}
	v := reflect.ValueOf(field).Elem()
	switch {
	case v.Kind() == reflect.Pointer:
		if v = v.Elem(); !v.IsValid() {
			return nil
		}
	case !m.Required && v.IsZero():
		return nil
	}
	switch m.Kind {
	case KindText: // of any type of strings
		return v.String()
	case KindCount: // of any type of integers
		return int32(v.Int()) //nolint:gosec // Set has set it
	}
	return v.Interface()
}

// IsZero reports whether the member is absent in o, also if it is required.
func (m *Member[O]) IsZero(o *O) bool { return reflect.ValueOf(m.field(o)).Elem().IsZero() }

// Set sets the member in o to a value of the type beside its Kind.
func (m *Member[O]) Set(o *O, value any) {
	field := m.field(o)
	switch field := field.(type) {
	case *string:
		*field = value.(string)
		return
	case *Quantity:
		*field = value.(Quantity)
		return
	}
	if carried := m.carried(field); carried != nil {
		CarriedMember{m.Name, m.Kind}.Carry(carried, value)
		return
	}
	v := reflect.ValueOf(field).Elem()
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	v.Set(reflect.ValueOf(value).Convert(v.Type()))
}

// carried returns the map that a carried member is in, or nil for any other member.
func (m *Member[O]) carried(field any) *map[string]any {
	if carried, ok := field.(*map[string]any); ok && m.Kind != KindProperties {
		return carried
	}
	return nil
}

// Droppable reports whether a reader omits the member if it can't read it, because a newer version
// may have stored it in another form. Properties are not droppable: a billable record without them
// would have another meaning.
func (m *Member[O]) Droppable() bool { return !m.Required && m.Kind != KindProperties }

// MemberNamed returns the member of that name, or nil if members has none.
func MemberNamed[O any](members []Member[O], name string) *Member[O] {
	for i := range members {
		if members[i].Name == name {
			return &members[i]
		}
	}
	return nil
}

// GroupMembers are the members of a group, in the order of the columns of an export.
var GroupMembers = []Member[Group]{
	{Name: "id", Required: true, Imported: true, Check: func(s string) error { _, err := ParseGroupID(s); return err }, field: func(g *Group) any { return &g.ID }},
	{Name: "organizationID", Required: true, field: func(g *Group) any { return &g.OrganizationID }},
	{Name: "buyerID", Required: true, Imported: true, Check: func(s string) error { _, err := ParseBuyerID(s); return err }, field: func(g *Group) any { return &g.BuyerID }},
	{Name: "entitlementID", Required: true, Imported: true, Check: func(s string) error { _, err := ParseEntitlementID(s); return err }, field: func(g *Group) any { return &g.EntitlementID }},
	{Name: "productID", Private: true, Check: func(s string) error { _, err := ParseProductID(s); return err }, field: func(g *Group) any { return &g.ProductID }},
	{Name: "partner", Required: true, Imported: true, Values: partners, field: func(g *Group) any { return &g.Partner }},
	{Name: "status", Required: true, Imported: true, Values: statuses, field: func(g *Group) any { return &g.Status }},
	{Name: "records", Kind: KindQuantities, Required: true, field: func(g *Group) any { return &g.Records }},
	{Name: "metaInfo", Kind: KindMetaInfo, Required: true, field: func(g *Group) any { return &g.MetaInfo }},
	{Name: "serialID", Kind: KindCount, Required: true, field: func(g *Group) any { return &g.SerialID }},
	{Name: "usageRecordReportID", Required: true, field: func(g *Group) any { return &g.UsageRecordReportID }},
	{Name: "creationTime", Kind: KindTime, Required: true, Imported: true, field: func(g *Group) any { return &g.CreationTime }},
	{Name: "lastUpdateTime", Kind: KindTime, Required: true, field: func(g *Group) any { return &g.LastUpdateTime }},
	{Name: "reportedTime", Kind: KindTime, field: func(g *Group) any { return &g.ReportedTime }},
	{Name: "problems", Kind: KindProblems, field: func(g *Group) any { return &g.Problems }},
	{Name: "reportBy", Kind: KindTime, field: func(g *Group) any { return &g.ReportBy }},
}

// MetaInfoMembers are the members of a metaInfo (API reference: metaInfo). Integrations write the
// carried members and read them back. The service checks only their types, because one member of
// the wrong type makes a strict client drop a whole page.
var MetaInfoMembers = []Member[MetaInfo]{
	{Name: "SkipValidation", Kind: KindFlag, field: func(m *MetaInfo) any { return &m.SkipValidation }},
	{Name: "source", Values: sources, field: func(m *MetaInfo) any { return &m.Source }},
	{Name: "timestamp", Kind: KindTime, field: func(m *MetaInfo) any { return &m.Timestamp }},
	{Name: "originRecords", Kind: KindQuantities, field: func(m *MetaInfo) any { return &m.OriginRecords }},
	{Name: "billableRecords", Kind: KindBillableRecords, field: func(m *MetaInfo) any { return &m.BillableRecords }},
	{Name: "lagoAmount", Kind: KindAmount, field: carried},
	{Name: "lagoSubscriptionID", field: carried},
	{Name: "lagoUsageStartTime", Kind: KindTime, field: carried},
	{Name: "metronomeDailyCostAmount", Kind: KindAmount, field: carried},
	{Name: "metronomeInvoiceID", field: carried},
	{Name: "metronomeMonthlyInvoiceAmount", Kind: KindAmount, field: carried},
	{Name: "metronomeMonthlyInvoiceAmountAdjusted", Kind: KindAmount, field: carried},
	{Name: "stripeInvoiceID", field: carried},
	{Name: "stripePeriodEndTime", Kind: KindTime, field: carried},
	{Name: "stripePeriodStartTime", Kind: KindTime, field: carried},
	{Name: "stripeSubscriptionItemID", field: carried},
	{Name: "stripeUsageRecordSummaryID", field: carried},
	{Name: "stripeUsageRecordSummaryTotalUsage", Kind: KindCount, field: carried},
}

// BillableMembers are the members of a billable record.
var BillableMembers = []Member[BillableRecord]{
	{Name: "key", Required: true, field: func(r *BillableRecord) any { return &r.Key }},
	{Name: "quantity", Kind: KindQuantity, Required: true, field: func(r *BillableRecord) any { return &r.Quantity }},
	{Name: "properties", Kind: KindProperties, field: func(r *BillableRecord) any { return &r.Properties }},
}

// ProblemMembers are the members of a stored problem. Only an ERROR is stored, so the severity is
// not.
var ProblemMembers = []Member[Problem]{
	{Name: "code", Required: true, field: func(p *Problem) any { return &p.Code }},
	{Name: "path", Required: true, field: func(p *Problem) any { return &p.Path }},
	{Name: "message", Required: true, field: func(p *Problem) any { return &p.Message }},
	{Name: "hint", Required: true, field: func(p *Problem) any { return &p.Hint }},
}

// EntitlementMembers are the members of an entitlement.
var EntitlementMembers = []Member[Entitlement]{
	{Name: "id", Required: true, Imported: true, field: func(e *Entitlement) any { return &e.ID }},
	{Name: "organizationID", Required: true, field: func(e *Entitlement) any { return &e.OrganizationID }},
	{Name: "name", field: func(e *Entitlement) any { return &e.Name }},
	{Name: "partner", Required: true, Imported: true, Values: partners, field: func(e *Entitlement) any { return &e.Partner }},
	{Name: "buyerID", Required: true, Imported: true, field: func(e *Entitlement) any { return &e.BuyerID }},
	{Name: "productID", field: func(e *Entitlement) any { return &e.ProductID }},
	{Name: "externalID", field: func(e *Entitlement) any { return &e.ExternalID }},
	{Name: "status", Required: true, Imported: true, Values: entitlementStatuses, field: func(e *Entitlement) any { return &e.Status }},
	{Name: "startTime", Kind: KindTime, field: func(e *Entitlement) any { return &e.StartTime }},
	{Name: "endTime", Kind: KindTime, field: func(e *Entitlement) any { return &e.EndTime }},
	{Name: "cancelTime", Kind: KindTime, field: func(e *Entitlement) any { return &e.CancelTime }},
	{Name: "info", Kind: KindEntitlementInfo, field: func(e *Entitlement) any { return &e.Info }},
	{Name: "marketplace", Kind: KindMarketplaceIDs, field: func(e *Entitlement) any { return &e.Marketplace }},
	{Name: "creationTime", Kind: KindTime, Required: true, Imported: true, field: func(e *Entitlement) any { return &e.CreationTime }},
	{Name: "lastUpdateTime", Kind: KindTime, Required: true, field: func(e *Entitlement) any { return &e.LastUpdateTime }},
}

// EntitlementInfoMembers are the members of an entitlement's info.
var EntitlementInfoMembers = []Member[EntitlementInfo]{
	{Name: "currency", field: func(i *EntitlementInfo) any { return &i.Currency }},
	{Name: "commitAmount", Kind: KindQuantity, field: func(i *EntitlementInfo) any { return &i.CommitAmount }},
	{Name: "dimensions", Kind: KindDimensions, field: func(i *EntitlementInfo) any { return &i.Dimensions }},
}

// DimensionMembers are the members of a dimension.
var DimensionMembers = []Member[Dimension]{
	{Name: "key", Required: true, field: func(d *Dimension) any { return &d.Key }},
	{Name: "name", field: func(d *Dimension) any { return &d.Name }},
	{Name: "description", field: func(d *Dimension) any { return &d.Description }},
	{Name: "rate", Kind: KindQuantity, field: func(d *Dimension) any { return &d.Rate }},
	{Name: "listPrice", Kind: KindQuantity, field: func(d *Dimension) any { return &d.ListPrice }},
	{Name: "valueType", field: func(d *Dimension) any { return &d.ValueType }},
}

// MarketplaceMembers are the members of an entitlement's marketplace. MarketplaceIDs.Check has the
// partner and the form of each.
var MarketplaceMembers = []Member[MarketplaceIDs]{
	{Name: "customerAWSAccountID", field: func(m *MarketplaceIDs) any { return &m.CustomerAWSAccountID }},
	{Name: "licenseArn", field: func(m *MarketplaceIDs) any { return &m.LicenseARN }},
	{Name: "customerIdentifier", field: func(m *MarketplaceIDs) any { return &m.CustomerIdentifier }},
	{Name: "productCode", field: func(m *MarketplaceIDs) any { return &m.ProductCode }},
	{Name: "region", field: func(m *MarketplaceIDs) any { return &m.Region }},
	{Name: "resourceID", field: func(m *MarketplaceIDs) any { return &m.ResourceID }},
	{Name: "resourceURI", field: func(m *MarketplaceIDs) any { return &m.ResourceURI }},
	{Name: "planID", field: func(m *MarketplaceIDs) any { return &m.PlanID }},
	{Name: "usageReportingID", field: func(m *MarketplaceIDs) any { return &m.UsageReportingID }},
	{Name: "serviceName", field: func(m *MarketplaceIDs) any { return &m.ServiceName }},
}

// ConnectionMembers are the members of a connection.
var ConnectionMembers = []Member[Connection]{
	{Name: "partner", Required: true, Values: partners, field: func(c *Connection) any { return &c.Partner }},
	{Name: "roleArn", field: func(c *Connection) any { return &c.RoleARN }},
	{Name: "externalID", field: func(c *Connection) any { return &c.ExternalID }},
	{Name: "tenantID", field: func(c *Connection) any { return &c.TenantID }},
	{Name: "clientID", field: func(c *Connection) any { return &c.ClientID }},
	{Name: "secretArn", field: func(c *Connection) any { return &c.SecretARN }},
	{Name: "workloadIdentity", Kind: KindProperties, field: func(c *Connection) any { return &c.WorkloadIdentity }},
	{Name: "lateUsage", Values: lateUsages, field: func(c *Connection) any { return &c.LateUsage }},
	{Name: "lockMinutes", Kind: KindCount, field: func(c *Connection) any { return &c.LockMinutes }},
	{Name: "endpoint", field: func(c *Connection) any { return &c.Endpoint }},
}

// MetricMembers are the members of a billable metric.
var MetricMembers = []Member[BillableMetric]{
	{Name: "id", Required: true, Imported: true, field: func(m *BillableMetric) any { return &m.ID }},
	{Name: "organizationId", Required: true, field: func(m *BillableMetric) any { return &m.OrganizationID }},
	{Name: "name", Required: true, Imported: true, field: func(m *BillableMetric) any { return &m.Name }},
	{Name: "description", field: func(m *BillableMetric) any { return &m.Description }},
	{Name: "aggregationType", Required: true, Imported: true, Values: aggregationTypes, field: func(m *BillableMetric) any { return &m.AggregationType }},
	{Name: "status", Required: true, Imported: true, Values: metricStatuses, field: func(m *BillableMetric) any { return &m.Status }},
	{Name: "info", Kind: KindMetricInfo, field: func(m *BillableMetric) any { return &m.Info }},
	{Name: "creationTime", Kind: KindTime, Required: true, Imported: true, field: func(m *BillableMetric) any { return &m.CreationTime }},
	{Name: "lastUpdateTime", Kind: KindTime, Required: true, field: func(m *BillableMetric) any { return &m.LastUpdateTime }},
}

// MetricInfoMembers are the members of a billable metric's info.
var MetricInfoMembers = []Member[MetricInfo]{
	{Name: "filterGroups", Kind: KindFilterGroups, field: func(i *MetricInfo) any { return &i.FilterGroups }},
	{Name: "groupBys", Kind: KindTexts, field: func(i *MetricInfo) any { return &i.GroupBys }},
	{Name: "propertyUniqueOn", field: func(i *MetricInfo) any { return &i.PropertyUniqueOn }},
}

// FilterGroupMembers are the members of a group of filters.
var FilterGroupMembers = []Member[FilterGroup]{
	{Name: "filters", Kind: KindMetricFilters, field: func(g *FilterGroup) any { return &g.Filters }},
}

// FilterMembers are the members of a filter of a billable metric.
var FilterMembers = []Member[MetricFilter]{
	{Name: "name", Required: true, field: func(f *MetricFilter) any { return &f.Name }},
	{Name: "operation", Required: true, Values: filterOperations, field: func(f *MetricFilter) any { return &f.Operation }},
	{Name: "value", Kind: KindDocument, field: func(f *MetricFilter) any { return &f.Value }},
	{Name: "valueType", Values: filterValueTypes, field: func(f *MetricFilter) any { return &f.ValueType }},
}

func carried(m *MetaInfo) any { return &m.Carried }

func entitlementStatuses() []string { return texts(EntitlementStatuses) }

func lateUsages() []string { return texts(LateUsages) }

func aggregationTypes() []string { return texts(AggregationTypes) }

func metricStatuses() []string { return texts(MetricStatuses) }

func filterOperations() []string { return texts(FilterOperations) }

func filterValueTypes() []string { return texts(FilterValueTypes) }

func partners() []string { return texts(Partners) }

func statuses() []string { return texts(Statuses) }

func sources() []string { return texts(Sources) }

func texts[S ~string](values []S) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}

// CarriedMember is a metaInfo member that is carried.
type CarriedMember struct {
	Name string
	Kind Kind
}

// CarriedMembers returns all carried members.
func CarriedMembers() (all []CarriedMember) {
	var m MetaInfo
	for i := range MetaInfoMembers {
		if member := MetaInfoMembers[i]; member.carried(member.field(&m)) != nil {
			all = append(all, CarriedMember{member.Name, member.Kind})
		}
	}
	return all
}

// Carry sets the member in carried to a value of the type beside its Kind. It makes the map if
// carried is nil. What is carried is a document: a time becomes text and a count a Number.
func (m CarriedMember) Carry(carried *map[string]any, value any) {
	if *carried == nil {
		*carried = map[string]any{}
	}
	(*carried)[m.Name] = documentOf(value, false)
}
