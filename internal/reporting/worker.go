package reporting

import (
	"log/slog"
	"time"
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
	// MaxDeadlines bounds of how many entitlements Schedule reads the deadlines; 0 is 2000.
	MaxDeadlines int
}

// Overview is what Schedule has seen of the work of all organizations.
type Overview struct {
	Places int       // with groups that wait, or an hour to plan
	Lanes  int       // with a sealed hour that is due
	Oldest time.Time // the hour of the oldest usage that is not settled; zero if there is none
	// Of usage that is not settled and whose hour has closed (reports.Schedule.Closes); zero if
	// there is none.
	Closed   time.Time // when the first of these hours closed
	Deadline time.Time // the earliest deadline
}
