package reporting

import (
	"context"
	"math/bits"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// hintPending makes a hint for each hour that this submission has left undecided and whose report
// has more to show now: Plan writes it. One that is lost loses nothing of the protocol.
func (s *submission) hintPending() {
	for _, h := range s.hours {
		if !h.lost && h.State == reports.StateSealed && showsMore(h.read, h.Hour) {
			s.hint(Hint{Place: h.Place()})
		}
	}
}

// showPending writes the report of a sealed hour that was sent again. It never replaces that of a
// later version of the hour.
func (w *Worker) showPending(ctx context.Context, h *reports.Hour) error {
	var listed []metering.GroupID
	for part := 0; part < h.Parts && len(listed) < maxListed; part++ {
		members, err := w.present(ctx, h, part)
		if err != nil {
			return err
		}
		listed = appendListed(listed, members)
	}
	return w.Store.PutReport(ctx, h, listed)
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
