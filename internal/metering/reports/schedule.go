package reports

import (
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Schedule says in which hours the usage of an entitlement can be reported, and when. Hours are
// named by their start, in UTC. Sources: docs/reporting.md has the rules, with the marketplaces'
// pages.
type Schedule struct {
	Partner metering.Partner

	// Of the entitlement. A zero time is no bound.
	Start  time.Time
	End    time.Time
	Cancel time.Time

	// Of the connection.
	Lock  time.Duration // how long an hour stays open after its end
	Carry bool          // usage whose own window is over is reported in a later one
}

const (
	cancelLock    = 10 * time.Minute // how long hours stay open after a cancellation
	sendingMargin = time.Hour        // from closing an hour to its deadline; less if little is left
	lookingTime   = time.Hour        // in which workers look at new usage, also if they fail some times
	googleResends = 3 * time.Hour    // for how long Google is trusted to recognize an operation
)

// ScheduleOf is the schedule of an entitlement whose partner has the connection.
func ScheduleOf(e *metering.Entitlement, c metering.Connection) Schedule {
	c.Partner = e.Partner
	c = c.Effective()
	return Schedule{
		Partner: e.Partner, Start: e.StartTime, End: e.EndTime, Cancel: e.CancelTime,
		Lock: c.Lock(), Carry: c.LateUsage == metering.LateUsageCarried,
	}
}

// ScheduleBy is the schedule by terms; that of an entitlement that does not exist knows no window.
func ScheduleBy(terms *metering.Terms) Schedule {
	if terms == nil || terms.Entitlement == nil {
		return Schedule{}
	}
	var connection metering.Connection
	if terms.Connection != nil {
		connection = *terms.Connection
	}
	return ScheduleOf(terms.Entitlement, connection)
}

// Deadline is the moment from which the marketplace refuses usage of the hour; zero if it is not
// known.
func (s *Schedule) Deadline(hour time.Time) time.Time {
	return metering.WindowOf(s.Partner, hour, s.Cancel).End
}

// over reports whether the window of the hour is over. That of a marketplace that is not known
// never is: its usage is not refused for its age, and can't be sealed.
func (s *Schedule) over(hour, now time.Time) bool {
	w := metering.WindowOf(s.Partner, hour, s.Cancel)
	return w.Closed(now)
}

// uncancelled is the deadline of the hour if the entitlement is not cancelled.
func (s *Schedule) uncancelled(hour time.Time) time.Time {
	return metering.WindowOf(s.Partner, hour, time.Time{}).End
}

// Closes is when the hour is sealed: no usage is added to it afterwards. That is not before its
// end, unless a cancellation cuts it short. Google's last hour of a month has its deadline one hour
// after its end: half of that is for usage that comes late.
func (s *Schedule) Closes(hour time.Time) time.Time {
	end := hour.Add(time.Hour)
	closes := end.Add(s.Lock)
	if deadline := s.uncancelled(hour); !deadline.IsZero() {
		closes = metering.Earlier(closes, deadline.Add(-min(sendingMargin, deadline.Sub(end)/2)))
	}
	if !s.Cancel.IsZero() {
		closes = metering.Earlier(closes, s.Cancel.Add(cancelLock))
	}
	return closes
}

// SendUntil is the end of the window in which a record of the hour is sent. doubt is the first
// attempt of it that is in doubt; zero if none is.
func (s *Schedule) SendUntil(hour, doubt time.Time) time.Time {
	until := s.Deadline(hour)
	if s.Partner == "GCP" && !doubt.IsZero() {
		until = metering.Earlier(until, doubt.Add(googleResends))
	}
	return until
}

// Due returns the hour in which usage of the time at is reported: its own, or the first after the
// hour after, which has a report already; zero is none. The hour may have a report too: then Due is
// asked again, with that hour as after. A due hour never decreases.
//
// It returns EXPIRED if the window of the usage is over, and NO_HOUR_LEFT if no later hour may take
// the usage: the month of the marketplace, or the entitlement, ends first. created is when the
// usage was reported or retried: if its window ends while it waits to be looked at, it is not late,
// and may be reported in a later hour.
func (s *Schedule) Due(at, after, created, now time.Time) (hour time.Time, problem metering.ProblemCode) {
	own := metering.HourOf(at)
	over := s.over(own, now)
	hour = metering.Later(own, metering.HourOf(s.Start))
	if !after.IsZero() {
		hour = metering.Later(hour, metering.HourOf(after).Add(time.Hour))
	}
	switch {
	case over && s.Carry:
		hour = metering.Later(hour, s.firstOpen(now, sendingMargin))
	case over && s.over(own, metering.Later(created, now.Add(-lookingTime))):
		return time.Time{}, metering.ProblemExpired
	case over: // its month may have no other hour
		hour = metering.Later(hour, s.firstOpen(now, sendingMargin/2))
	}
	switch {
	case !s.Carry && !hour.Before(metering.MonthAfter(s.Partner, own)),
		!s.End.IsZero() && !hour.Before(s.End),
		!s.Cancel.IsZero() && !hour.Before(s.Cancel),
		s.over(hour, now):
		if over && !s.Carry {
			return time.Time{}, metering.ProblemExpired
		}
		return time.Time{}, metering.ProblemNoHourLeft
	}
	return hour, ""
}

// firstOpen is the first hour whose window is open for longer than the margin, to send usage whose
// own window is over. Google asks for usage within the hour: its first is the current one.
func (s *Schedule) firstOpen(now time.Time, margin time.Duration) time.Time {
	if s.Partner == "GCP" {
		return metering.HourOf(now)
	}
	hour := metering.HourOf(now.Add(margin - metering.UsageWindow)).Add(time.Hour)
	if !now.Before(s.uncancelled(hour).Add(-margin)) {
		hour = metering.MonthAfter(s.Partner, hour)
	}
	return hour
}

// unsent is why nothing of an hour is sent.
func (s *Schedule) unsent(hour time.Time) string {
	if !s.Start.Before(hour.Add(time.Hour)) {
		return "the entitlement starts after the hour"
	}
	return "the entitlement has ended before the hour"
}

// Sent returns the time that is sent for an hour, or false if nothing of it is left, by
// metering.SentTime.
func (s *Schedule) Sent(hour time.Time) (start, end time.Time, ok bool) {
	return metering.SentTime(hour, s.Start, s.End, s.Cancel)
}
