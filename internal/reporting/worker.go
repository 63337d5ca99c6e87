package reporting

import (
	"log/slog"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Worker does what docs/reporting.md calls the phases. Any number of workers may run at once, and
// each may stop or sleep at any point: what it decides is stored before it is acted on.
type Worker struct {
	Store        Store
	Marketplaces Marketplaces
	Queue        Queue
	Lanes        *Lanes // that were at fault; nil remembers none
	Now          func() time.Time
	Log          *slog.Logger
	// MaxCandidates is how many groups a list of candidates has at most; 0 is 5000, whose ids take
	// 180 KB of an item.
	MaxCandidates int
	// MaxDeadlines bounds of how many entitlements Schedule reads the deadlines, by the age of
	// their hours: current, ended, and those that only Google still takes. 0 is 2000 of each.
	MaxDeadlines int
	// SlowReadBack is after what time of a read-back that fails Reconcile reads back no other day
	// of the organization before the others had their turn; 0 is 15 s.
	SlowReadBack time.Duration
}

// Overview is what Schedule has seen of the work of all organizations.
type Overview struct {
	Places int       // with groups that wait, or an hour to plan
	Lanes  int       // with a sealed hour that is due
	Oldest time.Time // the hour of the oldest usage that is not settled; zero if there is none
	// Of usage that is not settled and whose hour has closed (reports.Schedule.Closes); zero if
	// there is none.
	Closed   Moment // when the first of these hours closed, but for those of Retried
	Retried  Moment // the same of those that are sent again in time, or are about to be sent first
	Deadline Moment // the earliest deadline
}

// Moment is a time of a place.
type Moment struct {
	time.Time
	Place reports.Place
}

// note keeps the time if it is the earliest. A zero time is none.
func (m *Moment) note(at time.Time, p reports.Place) {
	if !at.IsZero() && (m.IsZero() || at.Before(m.Time)) {
		*m = Moment{at, p}
	}
}
