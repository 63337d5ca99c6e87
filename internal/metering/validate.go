package metering

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NewGroup is a usage record group as a client reports it. Its shape is valid; its values are not
// checked yet. Quantities are the JSON numbers as sent, in the order sent.
type NewGroup struct {
	ID              string
	OrganizationID  string // empty, or the organization it is reported to
	EntitlementID   string
	Timestamp       *time.Time
	Records         []NewRecord
	BillableRecords []NewBillableRecord
	MetaInfo        NewMetaInfo
}

// NewRecord is a quantity of a dimension (usage metering v1).
type NewRecord struct {
	Key      string
	Quantity string
}

// NewBillableRecord is a quantity of a billable metric (usage metering v2).
type NewBillableRecord struct {
	Key        string
	Properties map[string]any
	Quantity   string // empty if none was sent, which means 0
}

// NewMetaInfo is the metaInfo of a NewGroup. Timestamp and BillableRecords of the group itself take
// precedence.
type NewMetaInfo struct {
	SkipValidation     bool
	SkipValidationSent bool
	Source             string
	Timestamp          *time.Time
	BillableRecords    []NewBillableRecord
	Carried            map[string]any
}

// ValidateBatch checks the groups that a client wants to report to organization org. It returns
// Invalid with the index, path and reason of the first invalid group and the number of invalid
// groups. It does not check a group with SkipValidation.
func ValidateBatch(groups []NewGroup, org OrgID, now time.Time) error {
	var first error
	firstIndex, invalid := 0, 0
	for i := range groups {
		if groups[i].MetaInfo.SkipValidation {
			continue
		}
		if err := groups[i].validate(org, now); err != nil {
			if first == nil {
				first, firstIndex = err, i
			}
			invalid++
		}
	}
	if first == nil {
		return nil
	}
	return Errorf(Invalid, "validation failed for usage record group: index %d: %v; %d of %d groups invalid",
		firstIndex, first, invalid, len(groups))
}

// validate returns the error for the first rule for new usage that g breaks.
func (g *NewGroup) validate(org OrgID, now time.Time) error {
	if g.ID != "" {
		if _, err := ParseGroupID(g.ID); err != nil {
			return fmt.Errorf("id is %s: %w", Quote(g.ID), err)
		}
	}
	if g.OrganizationID != "" && g.OrganizationID != string(org) {
		return fmt.Errorf("organizationID is %s: it must be the organization of the path, %s", Quote(g.OrganizationID), Quote(org))
	}
	if g.EntitlementID != "" {
		if _, err := ParseEntitlementID(g.EntitlementID); err != nil {
			return fmt.Errorf("entitlementID is %s: %w", Quote(g.EntitlementID), err)
		}
	}
	if source := Source(g.MetaInfo.Source); !slices.Contains(Sources, source) {
		return fmt.Errorf("metaInfo.source is %s: it must be %s", Quote(string(source)), OneOf(Sources))
	}
	timestampPath, timestamp := "timestamp", g.Timestamp
	if timestamp == nil {
		timestampPath, timestamp = "metaInfo.timestamp", g.MetaInfo.Timestamp
	}
	if timestamp != nil && timestamp.After(now.Add(MaxFuture)) {
		return fmt.Errorf("%s is %s: it must not be more than 5 minutes in the future (it is %s)",
			timestampPath, FormatTime(*timestamp), FormatTime(now))
	}
	if err := g.validateRecords(); err != nil {
		return err
	}
	if g.surelyFits() {
		return nil
	}
	largest := g.largest(org)
	return checkStoredSize(&largest, "the group may have %d bytes as stored, where records stand twice and an id that is not given counts as the longest")
}

// billable returns the billable records that count, and their path.
func (g *NewGroup) billable() (records []NewBillableRecord, path string) {
	if len(g.BillableRecords) > 0 {
		return g.BillableRecords, "billableRecords"
	}
	return g.MetaInfo.BillableRecords, "metaInfo.billableRecords"
}

func (g *NewGroup) validateRecords() error {
	billable, billablePath := g.billable()
	switch {
	case len(g.Records) > 0 && len(billable) > 0:
		return fmt.Errorf("records and %s are both filled: usage is reported as v1 (records) or v2 (billableRecords), not both", billablePath)
	case len(g.Records) == 0 && len(billable) == 0:
		return errors.New("records and billableRecords are both empty: one of them must hold at least one record")
	}

	allZero := true
	for _, r := range g.Records {
		if err := CheckKey(r.Key); err != nil {
			return fmt.Errorf("records has the key %s: %w", Quote(r.Key), err)
		}
		zero, err := checkNewQuantity(r.Quantity)
		if err != nil {
			return fmt.Errorf("records[%s]: %w", Quote(r.Key), err)
		}
		allZero = allZero && zero
	}
	for i, r := range billable {
		if err := CheckKey(r.Key); err != nil {
			return fmt.Errorf("%s[%d].key is %s: %w", billablePath, i, Quote(r.Key), err)
		}
		if err := checkProperties(r.Properties, billablePath+"["+strconv.Itoa(i)+"].properties"); err != nil {
			return err
		}
		if r.Quantity == "" {
			continue
		}
		zero, err := checkNewQuantity(r.Quantity)
		if err != nil {
			return fmt.Errorf("%s[%d].quantity: %w", billablePath, i, err)
		}
		allZero = allZero && zero
	}
	if allZero {
		return errors.New("every quantity is 0: at least one must be greater")
	}
	return nil
}

func checkNewQuantity(text string) (zero bool, err error) {
	q, err := ParseQuantity(text)
	if err != nil {
		return false, err
	}
	if q.Sign() < 0 {
		return false, fmt.Errorf("%s is negative: a quantity is 0 or more", q)
	}
	return q.Sign() == 0, nil
}

// OneOf lists the values of a set for a message: one of "AWS", "AZURE", "GCP".
func OneOf[S ~string](values []S) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(string(v))
	}
	return "one of " + strings.Join(quoted, ", ")
}
