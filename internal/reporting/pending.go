package reporting

import (
	"context"
	"fmt"
	"math/bits"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// showFor is how long a Submit takes at most for reports, of the time that it has left.
const showFor = 5 * time.Second

// showPending writes the reports of the hours that this submission has left undecided again, if
// they have more to show now. It comes last: a report that could not be written loses nothing, and
// never replaces that of a later version of its hour.
func (s *submission) showPending(ctx context.Context) {
	if shortOf(ctx, 2*showFor) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, showFor)
	defer cancel()
	var hours []*reports.Hour
	for _, h := range s.hours {
		if !h.lost && h.State == reports.StateSealed && showsMore(h.read, h.Hour) {
			hours = append(hours, h.Hour)
		}
	}
	err := each(ctx, len(hours), func(i int) error {
		listed, err := s.listed(ctx, hours[i])
		if err != nil {
			return err
		}
		return s.Store.PutReport(ctx, hours[i], listed)
	})
	if err != nil {
		s.Log.WarnContext(ctx, "a report does not show yet why its usage is not billed", "lane", s.lane, "error", err.Error())
	}
}

// showsMore reports whether the report of an hour is to be written again: a record has another
// outcome, or another reason why it has none, or its attempts have doubled. With the last, a report
// that a worker could not write is made up for.
func showsMore(before, after *reports.Hour) bool {
	for i := range after.Sealed.Records {
		now := &after.Sealed.Records[i]
		was := before.Record(now.Dimension)
		wasCode, wasReason := was.Pending()
		code, reason := now.Pending()
		if was.Outcome.Kind != now.Outcome.Kind || wasCode != code || wasReason != reason ||
			bits.Len(uint(was.Attempted())) != bits.Len(uint(now.Attempted())) {
			return true
		}
	}
	return false
}

// listed returns the first members of an hour, which its report names.
func (w *Worker) listed(ctx context.Context, h *reports.Hour) (ids []metering.GroupID, err error) {
	for part := 0; part < h.Parts && len(ids) < maxListed; part++ {
		list, err := w.Store.Candidates(ctx, h, part)
		if err != nil {
			return nil, err
		}
		if list.Sum == nil {
			return nil, fmt.Errorf("list %d of report %s has no sum", part, h.ID())
		}
		present := list.Present()
		ids = append(ids, present[:min(maxListed-len(ids), len(present))]...)
	}
	return ids, nil
}
