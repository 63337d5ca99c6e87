package wire

import "github.com/marketmeter/marketmeter/internal/metering"

// DecodeMetric reads the body that creates a billable metric. Members, types and sets of values are
// checked; metering.NewMetric checks the rest.
func DecodeMetric(body []byte) (metering.BillableMetric, error) {
	return decode(body, (*decoder).metric)
}

// DecodeMetricPatch reads the body that changes a billable metric.
func DecodeMetricPatch(body []byte) (metering.MetricPatch, error) {
	patch := &object[metering.MetricPatch]{"a change of a billable metric, an object", []member[metering.MetricPatch]{
		field("name", pointer((*decoder).text), func(p *metering.MetricPatch) **string { return &p.Name }),
		field("description", pointer((*decoder).text), func(p *metering.MetricPatch) **string { return &p.Description }),
		field("status", pointer((*decoder).metricStatus), func(p *metering.MetricPatch) **metering.MetricStatus { return &p.Status }),
	}}
	return decode(body, patch.value)
}

func (d *decoder) metricStatus() (metering.MetricStatus, error) {
	text, err := d.oneOf(metering.MemberNamed(metering.MetricMembers, "status").Values())
	return metering.MetricStatus(text), err
}

// DecodeStoredMetric reads a stored metric, which a newer version may have written.
func DecodeStoredMetric(text []byte) (metering.BillableMetric, error) {
	return decodeStored(text, (*decoder).metric, metering.MetricMembers)
}

func (d *decoder) metric() (m metering.BillableMetric, err error) {
	err = readMembers(d, "a billable metric, an object", metering.MetricMembers, &m, &m.Unknown)
	return m, err
}

// AppendMetric appends the metric as the API returns it and the table stores it.
func AppendMetric(b []byte, m *metering.BillableMetric) []byte {
	return appendMembers(b, metering.MetricMembers, m, m.Unknown)
}
