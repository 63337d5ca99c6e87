package metering

import "strings"

// CheckImported checks an entitlement of an import, which keeps its id, times and status, and sets
// LastUpdateTime to CreationTime if it is absent. It returns Invalid with the path of the member
// and what is accepted.
func (e *Entitlement) CheckImported() error {
	if e.LastUpdateTime.IsZero() {
		e.LastUpdateTime = e.CreationTime
	}
	if err := CheckImportedMembers(EntitlementMembers, e); err != nil {
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
	if err := CheckImportedMembers(MetricMembers, m); err != nil {
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

// CheckImportedMembers returns Invalid if a line of an import lacks a member that it must have.
func CheckImportedMembers[O any](members []Member[O], o *O) error {
	var missing string
	var imported []string
	for i := range members {
		m := &members[i]
		if !m.Imported {
			continue
		}
		imported = append(imported, m.Name)
		if missing == "" && m.IsZero(o) {
			missing = m.Name
		}
	}
	if missing != "" {
		return Errorf(Invalid, "%s is missing: %s are required", missing, strings.Join(imported, ", "))
	}
	return nil
}
