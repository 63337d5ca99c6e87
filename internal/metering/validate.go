package metering

import (
	"errors"
	"fmt"
	"iter"
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

// Check returns the first reason why the group can't be stored whatever the terms are, or nil. The
// report of such a group is Invalid and stores nothing: an identifier, key, source or property that
// is not allowed, a quantity of too many digits, records of both versions or of none, only zeros,
// or more than a group may hold. It is ErrAllZero if every quantity is zero.
func (g *NewGroup) Check(org OrgID) error {
	for r := range g.refusals(org) {
		return r.err
	}
	return nil
}

// ErrAllZero is the error of a group in which every quantity is zero.
var ErrAllZero = errors.New("every quantity is 0: at least one must be greater")

// refusal is a reason why a group can't be stored.
type refusal struct {
	path string // JSON Pointer
	code ProblemCode
	err  error // names the path, as code would write it
}

func (r *refusal) problem() Problem { return problem(r.code, r.path, "%v", r.err) }

// refusals are all reasons why the group can't be stored, in a fixed order.
func (g *NewGroup) refusals(org OrgID) iter.Seq[refusal] {
	return func(yield func(refusal) bool) {
		sound := true
		refuse := func(path, format string, args ...any) bool {
			sound = false
			return yield(refusal{path, ProblemNotStorable, fmt.Errorf(format, args...)})
		}
		if g.ID != "" {
			if _, err := ParseGroupID(g.ID); err != nil && !refuse("/id", "id is %s: %w", Quote(g.ID), err) {
				return
			}
		}
		if g.OrganizationID != "" && g.OrganizationID != string(org) && !refuse("/organizationID",
			"organizationID is %s: it must be the organization of the path, %s", Quote(g.OrganizationID), Quote(org)) {
			return
		}
		if g.EntitlementID != "" {
			if _, err := ParseEntitlementID(g.EntitlementID); err != nil && !refuse("/entitlementID", "entitlementID is %s: %w", Quote(g.EntitlementID), err) {
				return
			}
		}
		if source := Source(g.MetaInfo.Source); !slices.Contains(Sources, source) &&
			!refuse("/metaInfo/source", "metaInfo.source is %s: it must be %s", Quote(string(source)), OneOf(Sources)) {
			return
		}
		for r := range g.refusedRecords() {
			sound = false
			if !yield(r) {
				return
			}
		}
		if !sound || g.surelyFits() {
			return
		}
		largest := g.largest(org)
		if err := checkStoredSize(&largest, "the group may have %d bytes as stored, where records stand twice and an id that is not given counts as the longest"); err != nil {
			refuse("", "%w", err)
		}
	}
}

// billable returns the billable records that count, and their path.
func (g *NewGroup) billable() (records []NewBillableRecord, path string) {
	if len(g.BillableRecords) > 0 {
		return g.BillableRecords, "billableRecords"
	}
	return g.MetaInfo.BillableRecords, "metaInfo.billableRecords"
}

// billablePointer is the JSON Pointer of the i-th billable record.
func (g *NewGroup) billablePointer(i int) string {
	if len(g.BillableRecords) > 0 {
		return "/billableRecords/" + strconv.Itoa(i)
	}
	return "/metaInfo/billableRecords/" + strconv.Itoa(i)
}

// refusedRecords are the reasons why the records can't be stored.
func (g *NewGroup) refusedRecords() iter.Seq[refusal] {
	return func(yield func(refusal) bool) {
		refuse := func(path, format string, args ...any) bool {
			return yield(refusal{path, ProblemNotStorable, fmt.Errorf(format, args...)})
		}
		billable, billablePath := g.billable()
		switch {
		case len(g.Records) > 0 && len(billable) > 0:
			refuse("/records", "records and %s are both filled: usage is reported as v1 (records) or v2 (billableRecords), not both", billablePath)
			return
		case len(g.Records) == 0 && len(billable) == 0:
			refuse("/records", "records and billableRecords are both empty: one of them must hold at least one record")
			return
		}
		allZero := true
		for _, r := range g.Records {
			if err := CheckKey(r.Key); err != nil && !refuse(Pointer("/records", r.Key), "records has the key %s: %w", Quote(r.Key), err) {
				return
			}
			q, err := ParseQuantity(r.Quantity)
			allZero = allZero && err == nil && q.Sign() == 0
			if err != nil && !yield(refusal{Pointer("/records", r.Key), ProblemQuantityPrecision, fmt.Errorf("records[%s]: %w", Quote(r.Key), err)}) {
				return
			}
		}
		for i, r := range billable {
			if err := CheckKey(r.Key); err != nil && !refuse(g.billablePointer(i)+"/key", "%s[%d].key is %s: %w", billablePath, i, Quote(r.Key), err) {
				return
			}
			if !namesFit(r.Properties) {
				if err := misnamed(r.Properties, billablePath+"["+strconv.Itoa(i)+"].properties"); !refuse(g.billablePointer(i)+"/properties", "%w", err) {
					return
				}
			}
			if r.Quantity == "" {
				continue
			}
			q, err := ParseQuantity(r.Quantity)
			allZero = allZero && err == nil && q.Sign() == 0
			if err != nil && !yield(refusal{g.billablePointer(i) + "/quantity", ProblemQuantityPrecision, fmt.Errorf("%s[%d].quantity: %w", billablePath, i, err)}) {
				return
			}
		}
		if allZero {
			yield(refusal{"/records", ProblemNotStorable, ErrAllZero})
		}
	}
}

// OneOf lists the values of a set for a message: one of "AWS", "AZURE", "GCP".
func OneOf[S ~string](values []S) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(string(v))
	}
	return "one of " + strings.Join(quoted, ", ")
}
