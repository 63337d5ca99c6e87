package reporting

import (
	"sync"
	"time"
)

// For how long a lane that was at fault is left alone: what the marketplace asks for, within these.
const (
	minLaneWait = time.Minute
	maxLaneWait = 5 * time.Minute
)

// maxLanes is how many lanes are remembered.
const maxLanes = 10_000

// Lanes remembers the lanes that were at fault, so that each next hint does not call again at once.
// It is of one process, and a hint itself: what is due stays due. The zero value is ready, and nil
// remembers nothing. It is safe for concurrent use.
type Lanes struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// leave leaves a lane alone until a time.
func (l *Lanes) leave(lane string, now, until time.Time) {
	if l == nil {
		return
	}
	now, until = now.Round(0), until.Round(0) // a monotonic clock stands while a function is frozen
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until == nil || len(l.until) >= maxLanes {
		left := map[string]time.Time{}
		for lane, until := range l.until {
			if now.Before(until) {
				left[lane] = until
			}
		}
		l.until = left
	}
	if len(l.until) < maxLanes {
		l.until[lane] = until
	}
}

// left reports whether a lane is left alone.
func (l *Lanes) left(lane string, now time.Time) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now = now.Round(0)
	until, known := l.until[lane]
	// A clock that was set back must not leave it alone for longer.
	return known && now.Before(until) && until.Sub(now) <= maxLaneWait
}
