package apijson

import (
	"slices"
	"strconv"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// DecodeGroup reads a usage record group as the list operation returns it, or as another system's
// did: id, buyerID, entitlementID, partner, status and creationTime are required, productID may be
// there. Types, identifiers and sets of values are checked, the rules for new usage are not.
// lastUpdateTime defaults to creationTime; times are normalised, and 0001-01-01T00:00:00Z, which Go
// programs write for no time, counts as absent. The organization is as the line has it, unchecked, or
// empty.
func DecodeGroup(line []byte) (metering.Group, error) {
	group, err := decode(line, (*decoder).group)
	if err != nil {
		return metering.Group{}, err
	}
	return group, checkGroup(&group)
}

var groupMembers = []string{
	"buyerID", "creationTime", "entitlementID", "id", "lastUpdateTime", "metaInfo", "organizationID", "partner", "productID",
	"records", "reportedTime", "serialID", "status", "usageRecordReportID",
}

func (d *decoder) group() (g metering.Group, err error) {
	err = d.object("a usage record group, an object", func(name string) (err error) {
		switch name {
		case "buyerID":
			g.BuyerID, err = orZero(d, d.text)
		case "creationTime":
			g.CreationTime, err = orZero(d, d.time)
		case "entitlementID":
			g.EntitlementID, err = orZero(d, d.text)
		case "id":
			g.ID, err = orZero(d, d.text)
		case "lastUpdateTime":
			g.LastUpdateTime, err = orZero(d, d.time)
		case "metaInfo":
			g.MetaInfo, err = orZero(d, d.metaInfo)
		case "organizationID":
			g.OrganizationID, err = orZero(d, d.text)
		case "partner":
			g.Partner, err = orZero(d, func() (metering.Partner, error) { return oneOf(d, metering.Partners) })
		case "productID":
			g.ProductID, err = orZero(d, d.text)
		case "records":
			g.Records, err = orZero(d, d.quantities)
		case "reportedTime":
			g.ReportedTime, err = orZero(d, d.time)
		case "serialID":
			g.SerialID, err = orZero(d, d.int32)
		case "status":
			g.Status, err = orZero(d, func() (metering.Status, error) { return oneOf(d, metering.Statuses) })
		case "usageRecordReportID":
			g.UsageRecordReportID, err = orZero(d, d.text)
		default:
			err = d.unknown(name, groupMembers)
		}
		return err
	})
	return g, err
}

// checkGroup checks what must be there and the identifiers, and sets what has a default.
func checkGroup(g *metering.Group) error {
	for _, required := range []struct {
		name   string
		absent bool
	}{
		{"id", g.ID == ""},
		{"buyerID", g.BuyerID == ""},
		{"entitlementID", g.EntitlementID == ""},
		{"partner", g.Partner == ""},
		{"status", g.Status == ""},
		{"creationTime", g.CreationTime.IsZero()},
	} {
		if required.absent {
			return metering.Errorf(metering.Invalid, "%s is missing: id, buyerID, entitlementID, partner, status and creationTime are required", required.name)
		}
	}
	for _, identifier := range []struct {
		name, value string
		check       func(string) error
	}{
		{"id", g.ID, check(metering.ParseGroupID)},
		{"buyerID", g.BuyerID, check(metering.ParseBuyerID)},
		{"entitlementID", g.EntitlementID, check(metering.ParseEntitlementID)},
		{"productID", g.ProductID, check(metering.ParseProductID)},
	} {
		if identifier.value == "" {
			continue
		}
		if err := identifier.check(identifier.value); err != nil {
			return metering.Errorf(metering.Invalid, "%s is %s: %v", identifier.name, metering.Quote(identifier.value), err)
		}
	}
	if g.SerialID < 0 {
		return metering.Errorf(metering.Invalid, "serialID is %d: it must be 0 or more", g.SerialID)
	}
	if g.LastUpdateTime.IsZero() {
		g.LastUpdateTime = g.CreationTime
	}
	return nil
}

// check is parse without the identifier.
func check[ID any](parse func(string) (ID, error)) func(string) error {
	return func(text string) error {
		_, err := parse(text)
		return err
	}
}

// oneOf reads a string of a set.
func oneOf[S ~string](d *decoder, values []S) (S, error) {
	text, err := d.text()
	if err != nil {
		return "", err
	}
	if !slices.Contains(values, S(text)) {
		return "", d.errorf("is %s: it must be %s", metering.Quote(text), metering.OneOf(values))
	}
	return S(text), nil
}

func (d *decoder) metaInfo() (m metering.MetaInfo, err error) {
	err = d.object("an object", func(name string) (err error) {
		switch name {
		case "SkipValidation":
			m.SkipValidation, err = optional(d, d.boolean)
		case "source":
			m.Source, err = optional(d, func() (metering.Source, error) { return oneOf(d, metering.Sources) })
		case "timestamp":
			m.Timestamp, err = optional(d, d.time)
		case "originRecords":
			m.OriginRecords, err = orZero(d, d.quantities)
		case "billableRecords":
			m.BillableRecords, err = orZero(d, d.billableRecords)
		default:
			m.Carried, err = d.carried(name, m.Carried)
		}
		return err
	})
	return m, err
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
		err := d.billableRecord(&r.Key, &r.Properties, func() (err error) {
			r.Quantity, err = d.quantity()
			return err
		})
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
