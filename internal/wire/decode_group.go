package wire

import (
	"slices"
	"strconv"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// DecodeGroup reads a usage record group as the list operation, or another system's, returns it:
// id, buyerID, entitlementID, partner, status and creationTime are required, productID is optional.
// Types, identifiers and sets of values are checked, the rules for new usage are not.
// lastUpdateTime defaults to creationTime; times are normalised. 0001-01-01T00:00:00Z, which Go
// programs write for no time, counts as absent. The organization is the line's, unchecked, or
// empty.
func DecodeGroup(line []byte) (metering.Group, error) {
	group, err := decode(line, (*decoder).group)
	if err != nil {
		return metering.Group{}, err
	}
	return group, checkGroup(&group)
}

func (d *decoder) group() (g metering.Group, err error) {
	err = readMembers(d, "a usage record group, an object", metering.GroupMembers, &g, nil)
	return g, err
}

// checkGroup checks required members and identifiers, and sets defaults.
func checkGroup(g *metering.Group) error {
	for i := range metering.GroupMembers {
		m := &metering.GroupMembers[i]
		if text, _ := m.Get(g).(string); text != "" && m.Check != nil {
			if err := m.Check(text); err != nil {
				return metering.Errorf(metering.Invalid, "%s is %s: %v", m.Name, metering.Quote(text), err)
			}
		}
	}
	if err := metering.CheckImportedMembers(metering.GroupMembers, g); err != nil {
		return err
	}
	if g.SerialID < 0 {
		return metering.Errorf(metering.Invalid, "serialID is %d: it must be 0 or more", g.SerialID)
	}
	if g.LastUpdateTime.IsZero() {
		g.LastUpdateTime = g.CreationTime
	}
	return nil
}

// oneOf reads a string that must be one of values.
func (d *decoder) oneOf(values []string) (string, error) {
	text, err := d.text()
	if err == nil && !slices.Contains(values, text) {
		is := metering.Quote(text)
		if d.private {
			is = "another text"
		}
		err = d.errorf("is %s: it must be %s", is, metering.OneOf(values))
	}
	return text, err
}

func (d *decoder) quantities() (map[string]metering.Quantity, error) {
	quantities := map[string]metering.Quantity{}
	err := d.object("an object of quantities by dimension key", func(key string) (err error) {
		if err := metering.CheckKey(key); err != nil {
			return d.errorf("is not a dimension key: %v", err)
		}
		quantities[key], err = d.quantity()
		return err
	})
	return quantities, err
}

func (d *decoder) quantity() (metering.Quantity, error) {
	text, err := d.number()
	if err != nil {
		return metering.Quantity{}, err
	}
	q, err := metering.ParseQuantity(text)
	if err != nil {
		return metering.Quantity{}, d.errorf("is a number that can't be taken: %v", err)
	}
	return q, nil
}

func (d *decoder) billableRecords() ([]metering.BillableRecord, error) {
	records := []metering.BillableRecord{}
	err := d.array("an array of billable records", func(int) error {
		var r metering.BillableRecord
		err := readMembers(d, "a billable record, an object", metering.BillableMembers, &r, nil)
		if err == nil {
			if keyErr := metering.CheckKey(r.Key); keyErr != nil {
				err = d.errorf("has the key %s: %v", metering.Quote(r.Key), keyErr)
			}
		}
		records = append(records, r)
		return err
	})
	return records, err
}

func parseInt32(text string) (int32, error) {
	number, err := metering.ParseNumber(text) // 1e3 and 5.0 are integers too
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(number.String(), 10, 32)
	return int32(n), err
}

// DecodeDocument reads a JSON object, such as the list operation's metaInfo filter. A number that
// no stored value can equal becomes metering.NoNumber. The caller bounds its length.
func DecodeDocument(text []byte) (map[string]any, error) {
	document, err := decode(text, func(d *decoder) (any, error) {
		return d.document(len(text), func(text string) (any, error) {
			n, err := metering.ParseNumber(text)
			if err != nil {
				return metering.NoNumber{}, nil
			}
			return n, nil
		})
	})
	if err != nil {
		return nil, err
	}
	object, ok := document.(map[string]any)
	if !ok {
		return nil, metering.Errorf(metering.Invalid, "this must be a JSON object")
	}
	return object, nil
}
