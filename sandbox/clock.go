package sandbox

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// timeForm is the form of a time in RFC 3339. time.Parse also accepts an hour of one digit, a comma
// before the fraction, and offsets that do not exist.
var timeForm = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// parseTime reads a time in RFC 3339, in the years 1 to 9999 UTC.
func parseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	t = t.UTC()
	if err != nil || !timeForm.MatchString(text) || t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%q is not a time in RFC 3339", text)
	}
	return t, nil
}

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
