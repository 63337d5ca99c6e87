package metering

import "strings"

// CheckImported checks an entitlement of an import, which keeps its id, times and status, and sets
// LastUpdateTime to CreationTime if it is absent. It returns Invalid with the path of the member
// and what is accepted.
func (e *Entitlement) CheckImported() error {
	if e.LastUpdateTime.IsZero() {
		e.LastUpdateTime = e.CreationTime
	}
	if err := checkImported(EntitlementMembers, e); err != nil {
		return err
	}
	if _, err := ParseEntitlementID(string(e.ID)); err != nil {
		return Errorf(Invalid, "id is %s: %v", Quote(e.ID), err)
	}
	return e.check()
}

// CheckImported is Entitlement.CheckImported for a billable metric.
func (m *BillableMetric) CheckImported() error {
	if m.LastUpdateTime.IsZero() {
		m.LastUpdateTime = m.CreationTime
	}
	if err := checkImported(MetricMembers, m); err != nil {
		return err
	}
	if _, err := ParseMetricID(string(m.ID)); err != nil {
		return Errorf(Invalid, "id is %s: %v", Quote(m.ID), err)
	}
	if err := checkMetricName(m.Name); err != nil {
		return err
	}
	return m.checkInfo()
}

// checkImported returns an error if a member is absent without which the object could not be read
// once it is stored. Those that an import sets itself are not named.
func checkImported[O any](members []Member[O], o *O) error {
	var missing string
	var required []string
	for i := range members {
		m := &members[i]
		if !m.Required {
			continue
		}
		if absent := m.isZero(o); absent && missing == "" {
			missing = m.Name
		}
		if !strings.EqualFold(m.Name, "organizationID") && m.Name != "lastUpdateTime" {
			required = append(required, m.Name)
		}
	}
	if missing != "" {
		return Errorf(Invalid, "%s is missing: %s are required", missing, strings.Join(required, ", "))
	}
	return nil
}
