package table

import (
	"context"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Apply gives a member of the hour its status: one that is REPORT_PENDING, or REPORT_FAILED by an
// earlier version of the hour. Apply does nothing if the group is in another status or hour.
//
//	UpdateItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip, 6 write units under 1 KB; up to 3
//	                                              near 400 KB
//
// A repetition finds the group with its status and does nothing. A group must settle whatever its
// size: near 400 KB it has one short problem, and if that does not fit, what became of its
// dimensions is left to the report alone.
func (t *Table) Apply(ctx context.Context, h *reports.Hour, id metering.GroupID, applied *reports.Applied, now time.Time) error {
	a := application{hour: h, id: id, Applied: applied, now: now}
	a.problems, a.outcomes = metering.FirstProblems(applied.Problems), outcomesValue(applied)
	err := t.apply(ctx, &a)
	if _, tooLarge := invalid(err); tooLarge {
		a.problems = metering.ShortProblems(applied.Problems)
		err = t.apply(ctx, &a)
	}
	if _, tooLarge := invalid(err); tooLarge {
		a.outcomes = outcomesInReport(applied)
		err = t.apply(ctx, &a)
	}
	return err
}

// application is what Apply writes.
type application struct {
	hour *reports.Hour
	id   metering.GroupID
	*reports.Applied
	now      time.Time
	problems []metering.Problem
	outcomes types.AttributeValue // nil if nothing of them is stored
}

func (t *Table) apply(ctx context.Context, a *application) error {
	h, u := a.hour, newUpdate()
	u.setStatus(groupStatus{org: h.Organization, status: a.Status, at: a.now, problems: a.problems})
	u.set("usageRecordReportID", text(h.ID()))
	if a.Status == metering.StatusReported {
		u.set("reportedTime", text(metering.FormatTime(a.now)))
	} else {
		u.remove("reportedTime")
	}
	if a.outcomes != nil {
		u.set(attrOutcomes, a.outcomes)
	} else {
		u.remove(attrOutcomes)
	}
	applied, version := u.name(attrApplied), u.value(number(strconv.Itoa(h.Version)))
	u.sets = append(u.sets, applied+" = "+version)
	status := u.name("status")
	condition := "(" + status + " = " + u.value(text(string(metering.StatusReportPending))) +
		" OR " + status + " = " + u.value(text(string(metering.StatusReportFailed))) + " AND " + applied + " < " + version + ")"
	condition += " AND " + u.name(attrHour) + " = " + u.value(text(hourText(h.Start)))
	_, _, err := t.updateItem(ctx, "apply a report to a group", u.blind(ctx, t.name, itemKey(orgKey(h.Organization), groupKey(a.id)), condition))
	return err
}
