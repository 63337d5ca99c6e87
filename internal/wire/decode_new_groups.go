package wire

import (
	"math"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// DecodeNewGroups reads the body of the batch operations: an array of 1 to metering.MaxBatch usage
// record groups. A body that can't be read as that is Invalid. Values are not checked:
// ValidateBatch reports a number that does not fit.
func DecodeNewGroups(body []byte) ([]metering.NewGroup, error) {
	groups, err := decode(body, func(d *decoder) (groups []metering.NewGroup, err error) {
		group := newGroup()
		groups = make([]metering.NewGroup, 0, min(len(body)/usualGroup+1, metering.MaxBatch))
		err = d.array("an array of usage record groups", func(i int) error {
			if i == metering.MaxBatch {
				return metering.Errorf(metering.Invalid, "the array holds more than %d usage record groups: it must hold 1 to %d", metering.MaxBatch, metering.MaxBatch)
			}
			groups = append(groups, metering.NewGroup{})
			return group.read(d, &groups[i])
		})
		return groups, err
	})
	if err == nil && len(groups) == 0 {
		return nil, metering.Errorf(metering.Invalid, "the array is empty: it must hold 1 to %d usage record groups", metering.MaxBatch)
	}
	return groups, err
}

// A small group has about usualGroup bytes and usualRecords records.
const usualGroup, usualRecords = 128, 4

// DecodeNewGroup reads the body of a report: a usage record group. It checks as DecodeNewGroups
// does.
func DecodeNewGroup(body []byte) (metering.NewGroup, error) { return decode(body, newGroup().value) }

// newGroup is called for each request: as a variable it would be in every program that imports
// wire.
func newGroup() *object[metering.NewGroup] {
	billables, metaInfo := newBillables(), newMetaInfo()
	return &object[metering.NewGroup]{"a usage record group, an object", []member[metering.NewGroup]{
		field("id", (*decoder).text, func(g *metering.NewGroup) *string { return &g.ID }),
		field("organizationID", (*decoder).text, func(g *metering.NewGroup) *string { return &g.OrganizationID }),
		field("entitlementID", (*decoder).repeatedText, func(g *metering.NewGroup) *string { return &g.EntitlementID }),
		field("timestamp", pointer((*decoder).time), func(g *metering.NewGroup) **time.Time { return &g.Timestamp }),
		field("records", (*decoder).newRecords, func(g *metering.NewGroup) *[]metering.NewRecord { return &g.Records }),
		field("billableRecords", billables, func(g *metering.NewGroup) *[]metering.NewBillableRecord { return &g.BillableRecords }),
		field("metaInfo", metaInfo.value, func(g *metering.NewGroup) *metering.NewMetaInfo { return &g.MetaInfo }),
	}}
}

func newBillables() func(*decoder) ([]metering.NewBillableRecord, error) {
	record := &object[metering.NewBillableRecord]{"a billable record, an object", []member[metering.NewBillableRecord]{
		field("key", (*decoder).text, func(r *metering.NewBillableRecord) *string { return &r.Key }),
		field("properties", (*decoder).properties, func(r *metering.NewBillableRecord) *map[string]any { return &r.Properties }),
		field("quantity", (*decoder).number, func(r *metering.NewBillableRecord) *string { return &r.Quantity }),
	}}
	return listOf("an array of billable records", record.value)
}

func newMetaInfo() *object[metering.NewMetaInfo] {
	return &object[metering.NewMetaInfo]{"an object", append([]member[metering.NewMetaInfo]{
		{"SkipValidation", func(d *decoder, m *metering.NewMetaInfo) (err error) {
			if !d.null() {
				m.SkipValidation, err = d.boolean()
				m.SkipValidationSent = true
			}
			return err
		}},
		field("source", (*decoder).repeatedText, func(m *metering.NewMetaInfo) *string { return &m.Source }),
		field("timestamp", pointer((*decoder).time), func(m *metering.NewMetaInfo) **time.Time { return &m.Timestamp }),
		field("billableRecords", newBillables(), func(m *metering.NewMetaInfo) *[]metering.NewBillableRecord { return &m.BillableRecords }),
		// Only the service writes it: a value that a client sends is read and ignored.
		field("originRecords", (*decoder).newRecords, func(*metering.NewMetaInfo) *[]metering.NewRecord { return new([]metering.NewRecord) }),
	}, carriedMembers()...)}
}

func carriedMembers() (members []member[metering.NewMetaInfo]) {
	for _, carried := range metering.CarriedMembers() {
		members = append(members, member[metering.NewMetaInfo]{carried.Name, func(d *decoder, m *metering.NewMetaInfo) error {
			if d.null() {
				return nil
			}
			value, err := d.value(carried.Kind, nil)
			if err == nil {
				carried.Carry(&m.Carried, value)
			}
			return err
		}})
	}
	return members
}

func (d *decoder) newRecords() (records []metering.NewRecord, err error) {
	err = d.object("an object of quantities by dimension key", func(key string) error {
		quantity, err := d.number()
		if records == nil {
			records = make([]metering.NewRecord, 0, usualRecords)
		}
		records = append(records, metering.NewRecord{Key: key, Quantity: quantity})
		return err
	})
	return records, err
}

func (d *decoder) properties() (map[string]any, error) {
	document, err := d.document(metering.MaxPropertiesDepth, func(text string) (any, error) { return metering.ParseNumber(text) })
	if err != nil {
		return nil, err
	}
	properties, ok := document.(map[string]any)
	if !ok {
		return nil, d.errorf("must be an object of properties by name")
	}
	return properties, nil
}

func (d *decoder) amount() (metering.Number, error) {
	text, err := d.number()
	if err != nil {
		return metering.Number{}, err
	}
	n, err := metering.ParseNumber(text)
	if err != nil {
		return metering.Number{}, d.errorf("does not fit: %v", err)
	}
	return n, nil
}

func (d *decoder) int32() (int32, error) {
	text, err := d.number()
	if err != nil {
		return 0, err
	}
	n, err := parseInt32(text)
	if err != nil {
		return 0, d.errorf("is the number %.40s: it must be a 32-bit integer, %d to %d", text, math.MinInt32, math.MaxInt32)
	}
	return n, nil
}

func (d *decoder) time() (time.Time, error) {
	text, err := d.text()
	if err != nil {
		return time.Time{}, err
	}
	t, err := metering.ParseTime(text)
	if err != nil {
		return time.Time{}, d.errorf("is unreadable: %v", err)
	}
	return t, nil
}
