package metering

import "time"

// window is the time in which a marketplace takes usage. Source: the contract, "reportBy", and the
// marketplaces' own pages: docs/problems.md.
type window struct {
	end       time.Time // from then on usage is refused; zero if it is not known
	month     bool      // the end of the month ends it
	cancelled bool      // the cancellation of the entitlement ends it
}

func (w *window) closed(now time.Time) bool { return !w.end.IsZero() && !now.Before(w.end) }

const (
	usageWindow  = 24 * time.Hour // AWS and Azure, from the start of the hour, which is what is sent
	googleLate   = time.Hour      // after which Google does not promise to take usage
	cancelWindow = time.Hour      // AWS and Google, after a cancellation
)

// window is the window of usage that happened at that time.
func (t *Terms) window(at time.Time) (w window) {
	partner := t.Entitlement.Partner
	switch partner {
	case "AWS":
		w.end = hourOf(at).Add(usageWindow)
		if month := awsMonthEnd(at); month.Before(w.end) {
			w.end, w.month = month, true
		}
	case "AZURE":
		w.end = hourOf(at).Add(usageWindow)
	case "GCP":
		w.end, w.month = googleMonthEnd(at), true
	default:
		return w
	}
	if cancel := t.Entitlement.CancelTime; partner != "AZURE" && !cancel.IsZero() && cancel.Add(cancelWindow).Before(w.end) {
		w = window{end: cancel.Add(cancelWindow), cancelled: true}
	}
	return w
}

// reportBy is the last moment at which the marketplace takes usage of that time; zero if it is not
// known, as of usage that is carried to a later hour.
func (t *Terms) reportBy(at, now time.Time) time.Time {
	w := t.window(at)
	if w.closed(now) && t.carries(now) || w.end.Year() > 9999 {
		return time.Time{}
	}
	return w.end
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

// hourOf is the start of the UTC hour.
func hourOf(at time.Time) time.Time { return at.UTC().Truncate(time.Hour) }

// awsMonthEnd is when AWS closes the month of the usage: 06:00 UTC on the 1st of the next.
func awsMonthEnd(at time.Time) time.Time {
	at = at.UTC()
	return time.Date(at.Year(), at.Month()+1, 1, 6, 0, 0, 0, time.UTC)
}

// googleMonthEnd is when Google closes the month of the usage: 01:00 US Pacific on the 1st of the
// next. The month is one of US Pacific too.
func googleMonthEnd(at time.Time) time.Time {
	at = at.UTC()
	next := time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC)
	for !at.Before(pacificMidnight(next)) {
		next = next.AddDate(0, 1, 0)
	}
	return pacificMidnight(next).Add(time.Hour)
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
