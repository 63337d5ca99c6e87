package metering

import "time"

// Window is the time in which a marketplace accepts usage of an hour. Source: the marketplaces' own
// pages: docs/problems.md.
type Window struct {
	End       time.Time // from then on usage is refused; zero if it is not known
	Month     bool      // the end of the month ends it
	Cancelled bool      // the cancellation of the entitlement ends it
}

// Closed reports whether the window is over.
func (w *Window) Closed(now time.Time) bool { return !w.End.IsZero() && !now.Before(w.End) }

// UsageWindow is how long AWS and Azure accept usage, from the start of the hour, which is what is
// sent.
const UsageWindow = 24 * time.Hour

const (
	awsMonthGrace    = 6 * time.Hour // after its month, AWS accepts usage until then
	googleMonthGrace = time.Hour     // as above, for Google
	googleLate       = time.Hour     // after which Google does not promise to accept usage
	cancelWindow     = time.Hour     // AWS and Google, after a cancellation
)

// WindowOf is the window of usage that happened at that time. cancel is when its entitlement was
// cancelled; zero if it was not.
func WindowOf(partner Partner, at, cancel time.Time) (w Window) {
	switch partner {
	case "AWS":
		w.End = HourOf(at).Add(UsageWindow)
		if month := MonthAfter(partner, at).Add(awsMonthGrace); month.Before(w.End) {
			w.End, w.Month = month, true
		}
	case "AZURE":
		w.End = HourOf(at).Add(UsageWindow)
	case "GCP":
		w.End, w.Month = MonthAfter(partner, at).Add(googleMonthGrace), true
	default:
		return w
	}
	if partner != "AZURE" && !cancel.IsZero() && cancel.Add(cancelWindow).Before(w.End) {
		w = Window{End: cancel.Add(cancelWindow), Cancelled: true}
	}
	return w
}

// window is the window of usage that happened at that time.
func (t *Terms) window(at time.Time) Window {
	return WindowOf(t.Entitlement.Partner, at, t.Entitlement.CancelTime)
}

// reportBy is the last moment at which the marketplace takes usage of that time; zero if it is not
// known, as of usage that is carried to a later hour.
func (t *Terms) reportBy(at, now time.Time) time.Time {
	w := t.window(at)
	if w.Closed(now) && t.carries(now) || w.End.Year() > 9999 {
		return time.Time{}
	}
	return w.End
}

// carries reports whether usage whose window is over is reported in a later hour: the connection
// says so, and the entitlement has a later hour.
func (t *Terms) carries(now time.Time) bool {
	if t.Connection == nil || t.Connection.LateUsage != LateUsageCarried {
		return false
	}
	end := t.Entitlement.end()
	return end.IsZero() || now.Before(end)
}

// HourOf is the UTC hour of a time, named by its start.
func HourOf(at time.Time) time.Time { return at.UTC().Truncate(time.Hour) }

// MonthAfter is when the next month of the marketplace begins: in US Pacific at Google, else in
// UTC.
func MonthAfter(partner Partner, at time.Time) time.Time {
	at = at.UTC()
	next := time.Date(at.Year(), at.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	if partner != "GCP" {
		return next
	}
	if begun := pacificMidnight(next.AddDate(0, -1, 0)); at.Before(begun) {
		return begun
	}
	return pacificMidnight(next)
}

// pacificMidnight is the start of the 1st of a month in US Pacific. The rule of daylight saving
// time since 2007 (15 U.S.C. 260a) has 7 hours behind UTC on the 1st of April to November, also at
// 01:00 on November 1, and 8 on the others. Before 2007, April 1 differed (decision 42).
func pacificMidnight(first time.Time) time.Time {
	if first.Month() >= time.April && first.Month() <= time.November {
		return first.Add(7 * time.Hour)
	}
	return first.Add(8 * time.Hour)
}
