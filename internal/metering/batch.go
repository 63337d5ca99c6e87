package metering

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TermsByEntitlement are the terms of the entitlements that a batch names. An entitlement that does
// not exist has terms without an Entitlement.
type TermsByEntitlement map[EntitlementID]*Terms

// of returns the terms of the group: without an Entitlement if it names none.
func (t TermsByEntitlement) of(g *NewGroup) *Terms {
	if terms := t[EntitlementID(g.EntitlementID)]; terms != nil {
		return terms
	}
	return &Terms{}
}

// EntitlementsOf returns the entitlements that the groups name, and whether a group that names one
// has billable records.
func EntitlementsOf(groups []NewGroup) (ids []EntitlementID, billable bool) {
	seen := map[EntitlementID]bool{}
	for i := range groups {
		id := EntitlementID(groups[i].EntitlementID)
		if !seen[id] {
			if _, err := ParseEntitlementID(groups[i].EntitlementID); err != nil {
				continue
			}
			seen[id] = true
			ids = append(ids, id)
		}
		records, _ := groups[i].billable()
		billable = billable || len(records) > 0
	}
	return ids, billable
}

// ValidateBatch checks the groups that a client wants to report to organization org. It returns
// Invalid with the index, path and reason of the first invalid group and the number of invalid
// groups. It does not check a group with SkipValidation. What it approves, a report stores as
// CREATED, by the same terms at the same time.
func ValidateBatch(groups []NewGroup, org OrgID, terms TermsByEntitlement, now time.Time) error {
	first := ""
	firstIndex, invalid := 0, 0
	ids := map[string]int{}
	for i := range groups {
		g := &groups[i]
		if g.MetaInfo.SkipValidation {
			continue
		}
		reason := g.invalid(org, terms.of(g), now)
		if repeated, err := repeatedID(ids, g, i); reason == "" && repeated {
			reason = err.err.Error()
		}
		if reason == "" {
			continue
		}
		if invalid == 0 {
			first, firstIndex = reason, i
		}
		invalid++
	}
	if invalid == 0 {
		return nil
	}
	return Errorf(Invalid, "validation failed for usage record group: index %d: %s; %d of %d groups invalid",
		firstIndex, first, invalid, len(groups))
}

// invalid returns the first reason why a report of the group would not store it as CREATED, or "".
func (g *NewGroup) invalid(org OrgID, terms *Terms, now time.Time) string {
	if err := g.Check(org); err != nil {
		return err.Error()
	}
	judgement, keys := terms.judge(g, now, false)
	for i := range judgement.Problems {
		if judgement.Problems[i].Severity == SeverityError {
			return judgement.Problems[i].Message
		}
	}
	if terms.Exist() && g.roughSize()+keys > MaxStored {
		judgement = terms.Judge(g, now)
		if err := terms.CheckStorable(g, org, &judgement); err != nil {
			return err.Error()
		}
	}
	return ""
}

// repeatedID reports whether an earlier group of the batch has the id of g, which is the i-th.
func repeatedID(ids map[string]int, g *NewGroup, i int) (bool, refusal) {
	if g.ID == "" {
		return false, refusal{}
	}
	first, repeated := ids[g.ID]
	if !repeated {
		ids[g.ID] = i
		return false, refusal{}
	}
	return true, refusal{"/id", ProblemNotStorable, Errorf(Invalid, "id is %s: the group at index %d has it too, and an id names one group", Quote(g.ID), first)}
}

// ExplainedGroup is what validation says about a group of a batch.
type ExplainedGroup struct {
	Valid    bool
	Problems []Problem
	Preview  *Preview // nil if the group names no entitlement that exists
}

// Preview is what a report would store, and what the marketplace would be sent if the group were
// the only one of its hour.
type Preview struct {
	Entitlement   *Entitlement
	OriginRecords map[string]Quantity
	Records       map[string]Quantity
	ReportBy      time.Time     // zero if it is not known
	Requests      []UsageRecord // none if the group is invalid or the entitlement has no identifiers
}

// ExplainBatch is ValidateBatch with all problems of each group, and a preview. A group is valid if
// ValidateBatch does not count it as invalid. Of a group with SkipValidation it says what a report
// stores, and no problems.
func ExplainBatch(groups []NewGroup, org OrgID, terms TermsByEntitlement, now time.Time) []ExplainedGroup {
	explained := make([]ExplainedGroup, len(groups))
	ids := map[string]int{}
	contents := make(map[[sha256.Size]byte]int, len(groups))
	var buffer []byte
	for i := range groups {
		g, e := &groups[i], &explained[i]
		e.Problems, e.Preview = g.explain(org, terms.of(g), now)
		if repeated, r := repeatedID(ids, g, i); repeated {
			e.Problems = append(e.Problems, r.problem())
		}
		buffer = g.appendContent(buffer[:0])
		content := sha256.Sum256(buffer)
		if first, repeated := contents[content]; repeated {
			e.Problems = append(e.Problems, problem(ProblemDuplicateInBatch, "", "the group at index %d has the same content", first))
		} else {
			contents[content] = i
		}
		if g.MetaInfo.SkipValidation {
			e.Problems = nil
		}
		e.Valid = !slices.ContainsFunc(e.Problems, Problem.isError)
	}
	return explained
}

func (g *NewGroup) explain(org OrgID, terms *Terms, now time.Time) (problems []Problem, preview *Preview) {
	var refused problemList
	for r := range g.refusals(org) {
		refused.add(r.code, r.path, kindOf(r.code).Hint, "%v", r.err)
	}
	problems = refused.list()
	if len(problems) > 0 && !terms.Exist() {
		return problems, nil
	}
	judgement := Judgement{}
	if len(problems) == 0 {
		judgement = terms.Judge(g, now)
		problems = judgement.Problems
		if err := terms.CheckStorable(g, org, &judgement); err != nil {
			problems = append(problems, problem(ProblemNotStorable, "", "%v", err))
		}
		if terms.Exist() && terms.Connection == nil {
			problems = append(problems, terms.notConnected())
		}
	}
	if !terms.Exist() {
		return problems, nil
	}
	preview = &Preview{
		Entitlement: terms.Entitlement, OriginRecords: judgement.OriginRecords, Records: judgement.Records, ReportBy: judgement.ReportBy,
	}
	if !slices.ContainsFunc(problems, Problem.isError) && terms.Entitlement.Marketplace.Complete(terms.Entitlement.Partner) {
		preview.Requests = terms.usageRecords(&judgement)
	}
	return problems, preview
}

// appendContent appends the content of the group, by which two groups are the same usage: all that
// was sent, but for the id. Numbers are compared by value, and members in any order.
func (g *NewGroup) appendContent(b []byte) []byte {
	b = appendPart(b, g.EntitlementID)
	if timestamp := g.timestamp(); timestamp != nil {
		b = AppendTime(b, *timestamp)
	}
	b = append(b, 'r')
	for _, r := range sortedRecords(g.Records) {
		b = appendNumeral(appendPart(b, r.Key), r.Quantity)
	}
	b = append(b, 'b')
	billable, _ := g.billable()
	for _, r := range billable {
		b = appendIdentity(appendNumeral(appendPart(b, r.Key), r.Quantity), r.Properties)
	}
	b = strconv.AppendBool(append(b, 'm'), g.MetaInfo.SkipValidation)
	return appendIdentity(appendPart(b, g.MetaInfo.Source), g.MetaInfo.Carried)
}

func sortedRecords(records []NewRecord) []NewRecord {
	byKey := func(a, b NewRecord) int { return cmp.Compare(a.Key, b.Key) }
	if !slices.IsSortedFunc(records, byKey) {
		records = slices.SortedFunc(slices.Values(records), byKey)
	}
	return records
}

// appendPart appends text so that no other parts are the same bytes.
func appendPart(b []byte, text string) []byte {
	return append(append(strconv.AppendInt(b, int64(len(text)), 10), ':'), text...)
}

// appendNumeral appends a JSON number by its value, or as it is spelled if it is out of range.
func appendNumeral(b []byte, text string) []byte {
	if isCanonical := plainAndShort(text) && (text[len(text)-1] != '0' || !strings.Contains(text, ".")); isCanonical {
		return appendPart(b, text)
	}
	if n, err := ParseNumber(text); err == nil {
		text = n.String()
	}
	return appendPart(b, text)
}
