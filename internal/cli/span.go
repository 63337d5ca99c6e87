package cli

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

const (
	day         = 24 * time.Hour
	longestSpan = 3650 * day
)

var spanUnits = map[byte]time.Duration{'d': day, 'h': time.Hour, 'm': time.Minute, 's': time.Second}

// ParseSpan reads a whole number of days, hours, minutes or seconds, up to longestSpan.
func ParseSpan(text string) (time.Duration, error) {
	if text != "" {
		unit := spanUnits[text[len(text)-1]]
		n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
		if err == nil && unit != 0 && n <= uint64(longestSpan/unit) {
			return time.Duration(n) * unit, nil
		}
	}
	return 0, fmt.Errorf("it must be a whole number of days, hours, minutes or seconds, at most %dd, as in 90d or 12h", longestSpan/day)
}

// ParseLifetime reads a span that is longer than nothing. It returns 0 for "never".
func ParseLifetime(text string) (time.Duration, error) {
	if text == "never" {
		return 0, nil
	}
	span, err := ParseSpan(text)
	if err == nil && span == 0 {
		err = errors.New("it must be longer than nothing")
	}
	if err != nil {
		return 0, fmt.Errorf("%w, or never", err)
	}
	return span, nil
}
