package apijson

import (
	"math"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// MaxBatch is how many groups one request may carry.
const MaxBatch = 1000

// DecodeNewGroups reads the body of the batch operations: an array of 1 to MaxBatch usage record
// groups. What can't be read as that is Invalid; values are not checked, so that a number that
// doesn't fit is for ValidateBatch to tell.
func DecodeNewGroups(body []byte) ([]metering.NewGroup, error) {
	groups, err := decode(body, func(d *decoder) (groups []metering.NewGroup, err error) {
		err = d.array("an array of usage record groups", func(i int) error {
			if i == MaxBatch {
				return metering.Errorf(metering.Invalid, "the array holds more than %d usage record groups: it must hold 1 to %d", MaxBatch, MaxBatch)
			}
			group, err := d.newGroup()
			groups = append(groups, group)
			return err
		})
		return groups, err
	})
	if err == nil && len(groups) == 0 {
		return nil, metering.Errorf(metering.Invalid, "the array is empty: it must hold 1 to %d usage record groups", MaxBatch)
	}
	return groups, err
}

var newGroupMembers = []string{"billableRecords", "entitlementID", "id", "metaInfo", "organizationID", "records", "timestamp"}

func (d *decoder) newGroup() (g metering.NewGroup, err error) {
	err = d.object("a usage record group, an object", func(name string) (err error) {
		switch name {
		case "id":
			g.ID, err = orZero(d, d.text)
		case "organizationID":
			g.OrganizationID, err = orZero(d, d.text)
		case "entitlementID":
			g.EntitlementID, err = orZero(d, d.text)
		case "timestamp":
			g.Timestamp, err = optional(d, d.time)
		case "records":
			g.Records, err = orZero(d, d.newRecords)
		case "billableRecords":
			g.BillableRecords, err = orZero(d, d.newBillableRecords)
		case "metaInfo":
			g.MetaInfo, err = orZero(d, d.newMetaInfo)
		default:
			err = d.unknown(name, newGroupMembers)
		}
		return err
	})
	return g, err
}

func (d *decoder) newRecords() (records []metering.NewRecord, err error) {
	err = d.object("an object of quantities by dimension key", func(key string) error {
		quantity, err := d.number()
		records = append(records, metering.NewRecord{Key: key, Quantity: quantity})
		return err
	})
	return records, err
}

func (d *decoder) newBillableRecords() (records []metering.NewBillableRecord, err error) {
	err = d.array("an array of billable records", func(int) error {
		var r metering.NewBillableRecord
		err := d.billableRecord(&r.Key, &r.Properties, func() (err error) {
			r.Quantity, err = d.number()
			return err
		})
		records = append(records, r)
		return err
	})
	return records, err
}

var billableRecordMembers = []string{"key", "properties", "quantity"}

// billableRecord reads a billable record whose quantity, where there is one, quantity reads.
func (d *decoder) billableRecord(key *string, properties *map[string]any, quantity func() error) error {
	return d.object("a billable record, an object", func(name string) (err error) {
		switch name {
		case "key":
			*key, err = orZero(d, d.text)
		case "properties":
			*properties, err = orZero(d, d.properties)
		case "quantity":
			if !d.null() {
				err = quantity()
			}
		default:
			err = d.unknown(name, billableRecordMembers)
		}
		return err
	})
}

// maxPropertiesDepth keeps what is stored within DynamoDB's 32 levels: properties begin at the fifth.
const maxPropertiesDepth = 24

func (d *decoder) properties() (map[string]any, error) {
	document, err := d.document(maxPropertiesDepth, func(text string) (any, error) { return metering.ParseNumber(text) })
	if err != nil {
		return nil, err
	}
	properties, ok := document.(map[string]any)
	if !ok {
		return nil, d.errorf("must be an object of properties by name")
	}
	return properties, nil
}

var metaInfoMembers = namesOf(metering.MetaInfoMembers)

func (d *decoder) newMetaInfo() (m metering.NewMetaInfo, err error) {
	err = d.object("an object", func(name string) (err error) {
		switch name {
		case "SkipValidation":
			m.SkipValidation, err = orZero(d, d.boolean)
		case "source":
			m.Source, err = orZero(d, d.text)
		case "timestamp":
			m.Timestamp, err = optional(d, d.time)
		case "billableRecords":
			m.BillableRecords, err = orZero(d, d.newBillableRecords)
		case "originRecords":
			_, err = orZero(d, d.newRecords) // the service's own to write; a client's is read and ignored
		default:
			err = d.carried(name, &m.Carried)
		}
		return err
	})
	return m, err
}

// carried reads the member of an integration into carried, which it makes if it is nil.
func (d *decoder) carried(name string, carried *map[string]any) error {
	i := slices.IndexFunc(metering.CarriedMembers, func(m metering.CarriedMember) bool { return m.Name == name })
	if i < 0 {
		return d.unknown(name, metaInfoMembers)
	}
	if d.null() {
		return nil
	}
	member := metering.CarriedMembers[i]
	value, err := d.value(member.Kind, nil)
	if err == nil {
		member.Carry(carried, value)
	}
	return err
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
