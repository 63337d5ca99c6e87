package metering

import (
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"
)

func at(t testing.TB, text string) time.Time {
	t.Helper()
	if text == "" {
		return time.Time{}
	}
	parsed, err := ParseTime(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestReportBy_IsTheFirstLimit(t *testing.T) {
	const long = "2020-01-01T00:00:00Z" // ago: no window is over
	for _, c := range []struct {
		name             string
		partner          Partner
		usage, cancelled string
		want             string
	}{
		{"24 h from the start of the hour", "AWS", "2024-07-29T15:51:28.071Z", "", "2024-07-30T15:00:00.000Z"},
		{"at the start of the hour", "AWS", "2024-07-29T15:00:00Z", "", "2024-07-30T15:00:00.000Z"},
		{"another offset", "AWS", "2024-07-29T15:51:28+05:30", "", "2024-07-30T10:00:00.000Z"},
		{"24 h end as the month does", "AWS", "2024-07-31T06:59:59.999Z", "", "2024-08-01T06:00:00.000Z"},
		{"the month ends first", "AWS", "2024-07-31T07:00:00Z", "", "2024-08-01T06:00:00.000Z"},
		{"the last of a month", "AWS", "2024-02-29T23:59:59.999Z", "", "2024-03-01T06:00:00.000Z"},
		{"the first of a month", "AWS", "2024-03-01T00:00:00Z", "", "2024-03-02T00:00:00.000Z"},
		{"the last of a year", "AWS", "2024-12-31T23:00:00Z", "", "2025-01-01T06:00:00.000Z"},
		{"1 h after the cancellation", "AWS", "2024-07-29T15:51:28Z", "2024-07-29T16:30:00Z", "2024-07-29T17:30:00.000Z"},
		{"a cancellation after all", "AWS", "2024-07-29T15:51:28Z", "2024-07-30T15:00:00Z", "2024-07-30T15:00:00.000Z"},
		{"Azure has no month", "AZURE", "2024-07-31T23:59:59Z", "", "2024-08-01T23:00:00.000Z"},
		{"Azure has no hour after a cancellation", "AZURE", "2024-07-29T15:51:28Z", "2024-07-29T16:00:00Z", "2024-07-30T15:00:00.000Z"},
		{"Google in summer", "GCP", "2024-07-01T07:00:00Z", "", "2024-08-01T08:00:00.000Z"},
		{"Google, July in UTC alone", "GCP", "2024-07-01T06:59:59.999Z", "", "2024-07-01T08:00:00.000Z"},
		{"Google in winter", "GCP", "2024-12-01T08:00:00Z", "", "2025-01-01T09:00:00.000Z"},
		{"Google, December in UTC alone", "GCP", "2024-12-01T07:59:59.999Z", "", "2024-12-01T09:00:00.000Z"},
		{"Google, summer begins in March", "GCP", "2024-03-31T00:00:00Z", "", "2024-04-01T08:00:00.000Z"},
		{"Google, summer ends in November", "GCP", "2024-11-15T00:00:00Z", "", "2024-12-01T09:00:00.000Z"},
		// 01:00 on that day is twice: the first counts.
		{"Google, summer ends on November 1", "GCP", "2026-10-31T00:00:00Z", "", "2026-11-01T08:00:00.000Z"},
		{"Google, 1 h after the cancellation", "GCP", "2024-07-29T15:51:28Z", "2024-07-29T16:30:00Z", "2024-07-29T17:30:00.000Z"},
		{"another marketplace", "ORACLE", "2024-07-29T15:51:28Z", "", ""},
		{"after the year 9999", "AZURE", "9999-12-31T23:00:00Z", "", ""},
	} {
		terms := &Terms{Entitlement: &Entitlement{Partner: c.partner, CancelTime: at(t, c.cancelled)}}
		got := ""
		if by := terms.reportBy(at(t, c.usage), at(t, long)); !by.IsZero() {
			got = FormatTime(by)
		}
		if got != c.want {
			t.Errorf("%s: usage of %s on %s is reported by %s, want %s", c.name, c.usage, c.partner, got, c.want)
		}
	}
}

// Google's window ends at 01:00 US Pacific, as the time zone database has it.
func TestWindowOf_GooglesMonthIsOfUSPacific(t *testing.T) {
	pacific, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		from, to := time.Date(2007, 4, 2, 0, 0, 0, 0, time.UTC).UnixMilli(), time.Date(2037, 12, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
		usage := time.UnixMilli(rapid.Int64Range(from, to).Draw(rt, "usage"))
		there := usage.In(pacific)
		// Midnight is once on every day there; 01:00 on November 1 may be twice.
		want := time.Date(there.Year(), there.Month()+1, 1, 0, 0, 0, 0, pacific).Add(time.Hour)
		if got := WindowOf("GCP", usage, time.Time{}).End; !got.Equal(want) || got.In(pacific).Format("02 15:04:05") != "01 01:00:00" {
			rt.Fatalf("the month of %v ends at %v, want %v", there, got, want)
		}
	})
}

// US Pacific by its rule is US Pacific by the time zone database, in each month from 2007 to 2099.
func TestMonthAfter_IsUSPacificByTheDatabase(t *testing.T) {
	pacific, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		t.Fatal(err)
	}
	for month := range time.Month(12 * (2100 - 2007)) {
		midnight := time.Date(2007, 1+month, 1, 0, 0, 0, 0, pacific)
		if got := MonthAfter("GCP", midnight.Add(-time.Millisecond)); !got.Equal(midnight) {
			t.Errorf("%s begins at %s, want %s", midnight.Format("2006-01"), got, midnight.UTC())
		}
		if next := time.Date(2007, 2+month, 1, 0, 0, 0, 0, pacific); !MonthAfter("GCP", midnight).Equal(next) {
			t.Errorf("the month after %s begins at %s", midnight, MonthAfter("GCP", midnight))
		}
	}
}

// Usage is within its month and hour at once: the last moment is after the usage, on each
// marketplace, at most a month and a day after.
func TestReportBy_IsAfterTheUsage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		usage := time.UnixMilli(rapid.Int64Range(-60_000_000_000_000, 200_000_000_000_000).Draw(rt, "usage"))
		partner := rapid.SampledFrom(Partners).Draw(rt, "partner")
		by := (&Terms{Entitlement: &Entitlement{Partner: partner}}).reportBy(usage, usage)
		if !by.After(usage) || by.Sub(usage) > 32*24*time.Hour {
			rt.Fatalf("usage of %v on %s is reported by %v", usage, partner, by)
		}
	})
}
