package metering

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// timeLayout always has exactly three decimals: stored times sort as text.
const timeLayout = "2006-01-02T15:04:05.000Z"

// FormatTime returns t as the API returns it and the table stores it: RFC 3339 in UTC, truncated to
// milliseconds.
func FormatTime(t time.Time) string {
	return t.UTC().Format(timeLayout) // Format truncates
}

// AppendTime appends a time as FormatTime does.
func AppendTime(b []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(b, timeLayout)
}

// ParseTime reads an RFC 3339 time of any offset and precision and truncates it to the millisecond.
// A leap second, which no time.Time can hold, is read as the last millisecond of the second before
// it. By RFC 3339, 5.7 it is 23:59:60 UTC at the end of a month, at any offset; any other :60 is
// not a time.
func ParseTime(text string) (time.Time, error) {
	upper := strings.ToUpper(text) // RFC 3339 allows t and z
	parsed, isLeap := upper, false
	const second = len("2006-01-02T15:04:") // the offset at which the seconds begin
	if len(upper) > second+2 && upper[second-1:second+2] == ":60" {
		parsed, isLeap = upper[:second]+"59"+upper[second+2:], true
	}
	t, err := time.Parse(time.RFC3339, parsed)
	// time.Parse also accepts an hour of one digit, a decimal comma and an offset of a day.
	offset := upper[max(0, len(upper)-len("+00:00")):]
	if err != nil || strings.IndexByte(upper, ':') != len("2006-01-02T15") || strings.Contains(upper, ",") ||
		!strings.HasSuffix(upper, "Z") && (offset[1:] > "23:59" || offset[len("+00:"):] > "59") {
		return time.Time{}, fmt.Errorf("%s is not a time: it must be RFC 3339, such as 2024-07-29T15:51:28.071Z", Quote(text))
	}
	t = t.UTC().Truncate(time.Millisecond)
	if isLeap {
		t = t.Truncate(time.Second)
		if next := t.Add(time.Second); next.Day() != 1 || next.Hour() != 0 || next.Minute() != 0 || next.Second() != 0 {
			return time.Time{}, fmt.Errorf("%s is not a time: the second 60 is a leap second, which is only at the end of a month, at 23:59:60 UTC", Quote(text))
		}
		t = t.Add(999 * time.Millisecond)
	}
	if t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%s is out of range: in UTC its year must be 0 to 9999", Quote(text))
	}
	return t, nil
}

// Day is a UTC day, YYYY-MM-DD; days compare as strings do. The zero value is not a day.
type Day string

// ParseDay reads YYYY-MM-DD.
func ParseDay(text string) (Day, error) {
	if _, err := time.Parse(time.DateOnly, text); err != nil || len(text) != len(time.DateOnly) {
		return "", errors.New("it must be a day of the calendar as YYYY-MM-DD, such as 2024-07-29")
	}
	return Day(text), nil
}

// DayOf is the UTC day of t.
func DayOf(t time.Time) Day { return Day(t.UTC().Format(time.DateOnly)) }

// AddDays returns the day n days later, but not before 0000-01-01.
func (d Day) AddDays(n int) Day {
	t, err := time.Parse(time.DateOnly, string(d))
	if err != nil {
		panic("metering: a Day that ParseDay did not make: " + string(d))
	}
	t = t.AddDate(0, 0, n)
	if t.Year() < 0 {
		return "0000-01-01"
	}
	return DayOf(t)
}
