package metering

import (
	"fmt"
	"slices"
	"time"
)

// NewMetric checks what a client sent to create a billable metric, and returns the metric with the
// id and the time of now. The id and the times that the client sent are ignored. NewMetric returns
// Invalid with the path of the member and what is accepted.
func NewMetric(org OrgID, id MetricID, sent *BillableMetric, now time.Time) (BillableMetric, error) {
	m := *sent
	switch {
	case m.OrganizationID != "" && m.OrganizationID != org:
		return BillableMetric{}, Errorf(Invalid, "organizationId is %s: it must be that of the path, %s, or absent", Quote(m.OrganizationID), Quote(org))
	case m.Name == "" || m.AggregationType == "":
		missing := "name"
		if m.Name != "" {
			missing = "aggregationType"
		}
		return BillableMetric{}, Errorf(Invalid, "%s is missing: name and aggregationType are required", missing)
	case m.Status == MetricDeleted:
		return BillableMetric{}, Errorf(Invalid, "status is %q: a new metric is %q; PATCH deletes a metric", m.Status, MetricActive)
	}
	if err := checkMetricName(m.Name); err != nil {
		return BillableMetric{}, err
	}
	if err := m.checkInfo(); err != nil {
		return BillableMetric{}, err
	}
	now = now.UTC().Truncate(time.Millisecond)
	m.ID, m.OrganizationID, m.Status, m.CreationTime, m.LastUpdateTime = id, org, MetricActive, now, now
	return m, nil
}

// checkMetricName allows what can be a dimension's key: usage of a metric without a mapping goes to
// the dimension of the metric's name.
func checkMetricName(name string) error {
	if err := CheckKey(name); err != nil {
		return Errorf(Invalid, "name is %s: %v", Quote(name), err)
	}
	return nil
}

func (m *BillableMetric) checkInfo() error {
	for i, group := range m.Info.FilterGroups {
		path := fmt.Sprintf("info.filterGroups[%d].filters", i)
		if len(group.Filters) == 0 {
			return Errorf(Invalid, "%s is empty: a group must have at least one filter, or no record would meet it", path)
		}
		for j := range group.Filters {
			if err := group.Filters[j].check(fmt.Sprintf("%s[%d]", path, j)); err != nil {
				return err
			}
		}
	}
	for i, name := range m.Info.GroupBys {
		path := fmt.Sprintf("info.groupBys[%d]", i)
		if err := checkPropertyName(path, name); err != nil {
			return err
		}
		if slices.Contains(m.Info.GroupBys[:i], name) {
			return Errorf(Invalid, "%s is %s again: each name may be there once", path, Quote(name))
		}
	}
	unique := m.Info.PropertyUniqueOn
	switch {
	case unique == "" && m.AggregationType == AggregateUniqueCount:
		return Errorf(Invalid, "info.propertyUniqueOn is missing: a metric of type %s counts the distinct values of that property", AggregateUniqueCount)
	case unique != "":
		return checkPropertyName("info.propertyUniqueOn", unique)
	default:
		return nil
	}
}

func (f *MetricFilter) check(path string) error {
	if err := checkPropertyName(path+".name", f.Name); err != nil {
		return err
	}
	exists := f.Operation == "EXISTS" || f.Operation == "NOT_EXISTS"
	_, isNumber := f.Value.(Number)
	switch {
	case f.Operation == "":
		return Errorf(Invalid, "%s.operation is missing: it must be %s", path, OneOf(FilterOperations))
	case f.Value == nil && !exists:
		return Errorf(Invalid, "%s.value is missing: only EXISTS and NOT_EXISTS need none", path)
	case slices.Contains([]FilterOperation{"GT", "GTE", "LT", "LTE"}, f.Operation) && f.ValueType == "FLOAT" && !isNumber:
		if text, ok := f.Value.(string); ok {
			if _, err := ParseNumber(text); err == nil {
				return nil
			}
		}
		return Errorf(Invalid, "%s.value is no number: %s with the valueType FLOAT compares numbers", path, f.Operation)
	default:
		return nil
	}
}

func checkPropertyName(path, name string) error {
	if name == "" || len(name) > MaxPropertyName {
		return Errorf(Invalid, "%s has %d bytes: the name of a property must have 1 to %d bytes", path, len(name), MaxPropertyName)
	}
	return nil
}

// MetricPatch changes a billable metric. A nil member stays as it is.
type MetricPatch struct {
	Name        *string
	Description *string
	Status      *MetricStatus
}

// Apply returns the metric to store in place of the stored one. Its LastUpdateTime is the stored
// one's, so that an unchanged metric is equal to it. Apply returns Invalid if the name is not
// allowed.
func (p *MetricPatch) Apply(m BillableMetric) (BillableMetric, error) {
	if p.Name != nil {
		if err := checkMetricName(*p.Name); err != nil {
			return BillableMetric{}, err
		}
		m.Name = *p.Name
	}
	if p.Description != nil {
		m.Description = *p.Description
	}
	if p.Status != nil {
		m.Status = *p.Status
	}
	return m, nil
}
