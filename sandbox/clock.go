package sandbox

import (
	"errors"
	"time"
)

// Clock is the time that the marketplaces see. It runs at an offset from the machine's clock, or is
// frozen.
type Clock struct {
	Time   time.Time `json:"time"`
	Frozen bool      `json:"frozen"`
}

// ClockChange is a change of the clock. Absent members stay unchanged.
type ClockChange struct {
	Time    *time.Time // the new time of the clock
	Real    bool       // the machine's time, instead of Time
	Advance time.Duration
	Frozen  *bool
}

// clockState is the clock as it is stored: a frozen time, or the offset from the machine's clock.
type clockState struct {
	Frozen *time.Time    `json:"frozen,omitempty"`
	Offset time.Duration `json:"offset,omitempty"`
}

func (c clockState) at(wall time.Time) time.Time {
	if c.Frozen != nil {
		return c.Frozen.UTC()
	}
	return wall.Add(c.Offset).UTC().Round(0)
}

func (c clockState) changed(change ClockChange, wall time.Time) (clockState, error) {
	now := c.at(wall)
	switch {
	case change.Advance < 0:
		return c, errors.New("advance must not be negative: set time to go back")
	case change.Advance > 0 && (change.Time != nil || change.Real):
		return c, errors.New("the clock is set by time or by advance, not by both")
	case change.Time != nil:
		now = *change.Time
	case change.Real:
		now = wall
	default:
		now = now.Add(change.Advance)
	}
	if now.Year() < 1970 || now.Year() > 2299 { // a Duration holds an offset of 292 years
		return c, errors.New("the time must be in the years 1970 to 2299")
	}
	frozen := c.Frozen != nil
	if change.Frozen != nil {
		frozen = *change.Frozen
	}
	if frozen {
		now = now.UTC().Round(0)
		return clockState{Frozen: &now}, nil
	}
	return clockState{Offset: now.Sub(wall)}, nil
}
