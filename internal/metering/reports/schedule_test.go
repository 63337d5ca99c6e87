package reports

import (
	"testing"
	"time"
	_ "time/tzdata" // for a machine without a time zone database

	"github.com/marketmeter/marketmeter/internal/metering"
	"pgregory.net/rapid"
)

// at reads a time such as "06-30 23:10" of 2026, with an optional year before and seconds behind;
// "" is no time.
func at(text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	for _, layout := range []string{"01-02 15:04", "01-02 15:04:05.999"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.AddDate(2026, 0, 0)
		}
	}
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestSchedule_DeadlineAndClosing(t *testing.T) {
	for _, test := range []struct {
		name             string
		partner          metering.Partner
		lock             int
		hour, cancel     string
		deadline, closes string
	}{
		{"AWS", "AWS", 60, "06-15 10:00", "", "06-16 10:00", "06-15 12:00"},
		{"AWS, no lock", "AWS", 0, "06-15 10:00", "", "06-16 10:00", "06-15 11:00"},
		{"AWS, month end", "AWS", 60, "06-30 23:00", "", "07-01 06:00", "07-01 01:00"},
		{"AWS, month end, long lock", "AWS", 720, "06-30 23:00", "", "07-01 06:00", "07-01 05:00"},
		{"AWS, first hour of a month", "AWS", 60, "07-01 00:00", "", "07-02 00:00", "07-01 02:00"},
		{"AWS, last hour with 24 h", "AWS", 60, "06-30 06:00", "", "07-01 06:00", "06-30 08:00"},
		{"AWS, year end", "AWS", 60, "12-31 12:00", "", "2027-01-01 06:00", "12-31 14:00"},
		{"AWS, cancelled in the hour", "AWS", 60, "06-15 10:00", "06-15 10:20", "06-15 11:20", "06-15 10:30"},
		{"AWS, cancelled in the next hour", "AWS", 60, "06-15 10:00", "06-15 11:20", "06-15 12:20", "06-15 11:30"},
		{"AWS, cancelled after it closed", "AWS", 60, "06-15 10:00", "06-15 13:20", "06-15 14:20", "06-15 12:00"},
		{"Azure", "AZURE", 60, "06-30 23:00", "", "07-01 23:00", "07-01 01:00"},
		{"Azure, cancelled", "AZURE", 60, "06-15 10:00", "06-15 10:20", "06-16 10:00", "06-15 10:30"},
		{"Google", "GCP", 10, "06-15 10:00", "", "07-01 08:00", "06-15 11:10"},
		{"AWS, month end, longest lock before it", "AWS", 720, "06-30 17:00", "", "07-01 06:00", "07-01 05:00"},
		{"Azure, longest lock", "AZURE", 720, "06-30 23:00", "", "07-01 23:00", "07-01 12:00"},
		{"Google, longest lock", "GCP", 50, "06-15 10:00", "", "07-01 08:00", "06-15 11:50"},
		{"Google, last hour in US Pacific", "GCP", 10, "07-01 06:00", "", "07-01 08:00", "07-01 07:10"},
		{"Google, last hour, no lock", "GCP", 0, "07-01 06:00", "", "07-01 08:00", "07-01 07:00"},
		{"Google, last hour, longest lock", "GCP", 50, "07-01 06:00", "", "07-01 08:00", "07-01 07:30"},
		{"Google, last hour but one, longest lock", "GCP", 50, "07-01 05:00", "", "07-01 08:00", "07-01 06:50"},
		{"Google, last hour in winter", "GCP", 10, "12-01 07:00", "", "12-01 09:00", "12-01 08:10"},
		{"Google, last hour of the year", "GCP", 10, "2027-01-01 07:00", "", "2027-01-01 09:00", "2027-01-01 08:10"},
		{"Google, last hour before daylight saving time", "GCP", 10, "03-01 07:00", "", "03-01 09:00", "03-01 08:10"},
		{"Google, last hour of daylight saving time's first month", "GCP", 10, "04-01 06:00", "", "04-01 08:00", "04-01 07:10"},
		{"Google, last hour, cancelled in it", "GCP", 10, "07-01 06:00", "07-01 06:20", "07-01 07:20", "07-01 06:30"},
		{"Google, last hour, cancelled at its end", "GCP", 10, "07-01 06:00", "07-01 06:58", "07-01 07:58", "07-01 07:08"},
		{"Google, last hour, cancelled after its end", "GCP", 10, "07-01 06:00", "07-01 07:02", "07-01 08:00", "07-01 07:10"},
		{"Azure, cancelled, month end", "AZURE", 60, "06-30 23:00", "06-30 23:20", "07-01 23:00", "06-30 23:30"},
		{"AWS, cancelled, month end, longest lock", "AWS", 720, "06-30 23:00", "07-01 04:55", "07-01 05:55", "07-01 05:00"},
		{"another marketplace", "ORACLE", 60, "06-15 10:00", "", "", "06-15 12:00"},
		{"Google, first hour in US Pacific", "GCP", 10, "07-01 07:00", "", "08-01 08:00", "07-01 08:10"},
		{"Google, winter", "GCP", 10, "01-31 23:00", "", "02-01 09:00", "02-01 00:10"},
		// On 2026-11-01, 01:00 US Pacific is twice: the first counts.
		{"Google, last hour before 01:00 is twice", "GCP", 10, "11-01 06:00", "", "11-01 08:00", "11-01 07:10"},
		{"Google, 01:00 is twice", "GCP", 10, "10-31 23:00", "", "11-01 08:00", "11-01 00:10"},
		{"Google, cancelled", "GCP", 10, "06-15 10:00", "06-15 10:20", "06-15 11:20", "06-15 10:30"},
	} {
		s := Schedule{Partner: test.partner, Lock: time.Duration(test.lock) * time.Minute, Cancel: at(test.cancel)}
		if got := s.Deadline(at(test.hour)); !got.Equal(at(test.deadline)) {
			t.Errorf("%s: deadline %s", test.name, got)
		}
		if got := s.Closes(at(test.hour)); !got.Equal(at(test.closes)) {
			t.Errorf("%s: closes %s", test.name, got)
		}
	}
}

func TestSchedule_SendUntil(t *testing.T) {
	google, aws := Schedule{Partner: "GCP"}, Schedule{Partner: "AWS"}
	for _, test := range []struct {
		s                 *Schedule
		hour, doubt, want string
	}{
		{&google, "06-15 10:00", "", "07-01 08:00"},
		{&google, "06-15 10:00", "06-15 11:12", "06-15 14:12"},
		{&google, "07-01 06:00", "07-01 07:02", "07-01 08:00"},
		{&aws, "06-15 10:00", "06-15 11:12", "06-16 10:00"},
	} {
		if got := test.s.SendUntil(at(test.hour), at(test.doubt)); !got.Equal(at(test.want)) {
			t.Errorf("%s of %s in doubt since %q: %s", test.s.Partner, test.hour, test.doubt, got)
		}
	}
}

func TestSchedule_Due(t *testing.T) {
	const expired, none = metering.ProblemExpired, metering.ProblemNoHourLeft
	aws := Schedule{Partner: "AWS"}
	carry := Schedule{Partner: "AWS", Carry: true}
	azure := Schedule{Partner: "AZURE"}
	google := Schedule{Partner: "GCP"}
	googleCarry := Schedule{Partner: "GCP", Carry: true}
	with := func(s Schedule, start, end, cancel string) Schedule {
		s.Start, s.End, s.Cancel = at(start), at(end), at(cancel)
		return s
	}
	for _, test := range []struct {
		name         string
		s            Schedule
		usage, after string
		now, want    string
		problem      metering.ProblemCode
	}{
		// The usage is reported or retried now.
		{"own hour", aws, "06-15 10:20", "", "06-15 10:21", "06-15 10:00", ""},
		{"own hour, closed but without a report", aws, "06-15 10:20", "", "06-16 09:59", "06-15 10:00", ""},
		{"own hour, slightly in the future", aws, "06-15 11:02", "", "06-15 10:59", "06-15 11:00", ""},
		{"own hour has a report", aws, "06-15 10:20", "06-15 10:00", "06-15 13:00", "06-15 11:00", ""},
		{"moves on from where it is", aws, "06-15 10:20", "06-15 17:00", "06-15 19:00", "06-15 18:00", ""},
		{"a report before its hour moves nothing", aws, "06-15 10:20", "06-15 03:00", "06-15 13:00", "06-15 10:00", ""},
		{"window is over", aws, "06-15 10:20", "", "06-16 10:00", "", expired},
		{"window is over, after a report", aws, "06-15 10:20", "06-15 20:00", "06-16 10:00", "", expired},
		{"month is closed", aws, "06-30 20:20", "", "07-01 06:00", "", expired},
		{"last hour of the month has a report", aws, "06-30 23:20", "06-30 23:00", "07-01 02:00", "", none},
		{"the same, carried", carry, "06-30 23:20", "06-30 23:00", "07-01 02:00", "07-01 00:00", ""},
		{"Azure's month is of UTC too", azure, "06-30 23:20", "06-30 23:00", "07-01 02:00", "", none},
		{"carried to the first open window", carry, "06-10 10:20", "", "06-15 12:30", "06-14 14:00", ""},
		{"carried after a report", carry, "06-10 10:20", "06-14 20:00", "06-15 12:30", "06-14 21:00", ""},
		{"carried past a closed month", carry, "06-10 10:20", "", "07-01 05:30", "07-01 00:00", ""},
		{"carried within the month", carry, "06-10 10:20", "", "07-01 04:30", "06-30 06:00", ""},
		{"window open: not carried far", carry, "06-15 10:20", "", "06-15 12:30", "06-15 10:00", ""},
		{"after the end", with(aws, "", "06-15 10:00", ""), "06-15 10:00", "", "06-15 11:00", "", none},
		{"hour of the end", with(aws, "", "06-15 10:30", ""), "06-15 10:20", "", "06-15 11:00", "06-15 10:00", ""},
		{"moved past the end", with(aws, "", "06-15 11:00", ""), "06-15 10:20", "06-15 10:00", "06-15 13:00", "", none},
		{"carried past the end", with(carry, "", "06-12 11:00", ""), "06-10 10:20", "", "06-15 13:00", "", none},
		{"cancelled, before it", with(aws, "", "", "06-15 12:30"), "06-15 10:20", "", "06-15 12:40", "06-15 10:00", ""},
		{"cancelled, moved up to it", with(aws, "", "", "06-15 12:30"), "06-15 10:20", "06-15 11:00", "06-15 12:40", "06-15 12:00", ""},
		{"cancelled, moved past it", with(aws, "", "", "06-15 12:30"), "06-15 10:20", "06-15 12:00", "06-15 12:40", "", none},
		{"cancelled on the hour", with(aws, "", "", "06-15 12:00"), "06-15 11:20", "06-15 11:00", "06-15 12:05", "", none},
		{"cancelled, its hour is over", with(aws, "", "", "06-15 12:30"), "06-15 10:20", "", "06-15 13:30", "", expired},
		{"cancelled, carried", with(carry, "", "", "06-15 12:30"), "06-15 10:20", "", "06-15 13:30", "", none},
		{"Azure cancelled", with(azure, "", "", "06-15 12:30"), "06-15 10:20", "", "06-16 09:30", "06-15 10:00", ""},
		{"usage of after the cancellation", with(aws, "", "", "06-15 12:30"), "06-15 13:20", "", "06-15 13:21", "", none},
		{"usage of before the start", with(aws, "06-15 12:30", "", ""), "06-15 10:20", "", "06-15 13:00", "06-15 12:00", ""},
		{"Google, days late", google, "06-15 10:20", "", "06-25 10:00", "06-15 10:00", ""},
		{"Google, month of US Pacific", google, "07-01 06:20", "", "07-01 07:59", "07-01 06:00", ""},
		{"Google, month is closed", google, "07-01 06:20", "", "07-01 08:00", "", expired},
		{"Google, moved past the month", google, "07-01 06:20", "07-01 06:00", "07-01 07:30", "", none},
		{"another marketplace", Schedule{Partner: "ORACLE"}, "06-15 10:20", "", "06-25 10:00", "06-15 10:00", ""},
		{"Google, carried", googleCarry, "06-15 06:20", "", "07-20 07:30", "07-20 07:00", ""},
	} {
		hour, problem := test.s.Due(at(test.usage), at(test.after), at(test.now), at(test.now))
		if !hour.Equal(at(test.want)) || problem != test.problem {
			t.Errorf("%s: %s %s, want %s %s", test.name, hour, problem, test.want, test.problem)
		}
	}
}

// The window of usage ends between its report and the first look of a worker.
func TestSchedule_UsageThatCameInTimeMovesOn(t *testing.T) {
	const expired, none = metering.ProblemExpired, metering.ProblemNoHourLeft
	with := func(partner metering.Partner, start, end, cancel string, carry bool) Schedule {
		return Schedule{Partner: partner, Start: at(start), End: at(end), Cancel: at(cancel), Carry: carry}
	}
	aws, azure, google := with("AWS", "", "", "", false), with("AZURE", "", "", "", false), with("GCP", "", "", "", false)
	for _, test := range []struct {
		name         string
		s            Schedule
		usage, after string
		created, now string
		want         string
		problem      metering.ProblemCode
	}{
		{"AWS, its hour has a report", aws, "06-15 10:20", "06-15 10:00", "06-16 09:58", "06-16 10:01", "06-15 11:00", ""},
		{"Azure, its hour has a report", azure, "06-15 10:20", "06-15 10:00", "06-16 09:58", "06-16 10:01", "06-15 11:00", ""},
		{"AWS, its hour has none", aws, "06-15 10:20", "", "06-16 09:58", "06-16 10:01", "06-15 11:00", ""},
		{"AWS, later hours have reports", aws, "06-15 10:20", "06-15 17:00", "06-16 09:58", "06-16 10:01", "06-15 18:00", ""},
		{"AWS, in the last moment", aws, "06-15 10:20", "06-15 10:00", "06-16 09:59:59.999", "06-16 10:00", "06-15 11:00", ""},
		{"AWS, a moment too late", aws, "06-15 10:20", "06-15 10:00", "06-16 10:00", "06-16 10:00", "", expired},
		{"AWS, too late, accepted without validation", aws, "06-15 10:20", "", "06-16 10:05", "06-16 10:06", "", expired},
		{"AWS, looked at late: the next window ends soon", aws, "06-15 10:20", "06-15 10:00", "06-16 09:58", "06-16 10:45", "06-15 12:00", ""},
		{"AWS, looked at within the hour", aws, "06-15 10:20", "", "06-16 09:58", "06-16 10:57", "06-15 12:00", ""},
		{"AWS, not looked at for an hour", aws, "06-15 10:20", "", "06-15 10:21", "06-16 11:00", "", expired},
		{"AWS, not looked at for a day", aws, "06-15 10:20", "06-15 10:00", "06-16 09:58", "06-17 09:58", "", expired},
		{"AWS, reported at once, a short outage ends after the window", aws, "06-15 10:20", "", "06-15 10:21", "06-16 10:50", "06-15 12:00", ""},
		{"AWS, end of the month", aws, "06-30 20:20", "06-30 20:00", "07-01 05:58", "07-01 06:01", "", expired},
		{"AWS, end of the month, the last window", aws, "06-30 05:20", "06-30 05:00", "07-01 04:58", "07-01 05:01", "06-30 06:00", ""},
		{"AWS, end of the month, carried", with("AWS", "", "", "", true), "06-30 20:20", "06-30 20:00", "07-01 05:58", "07-01 06:01", "07-01 00:00", ""},
		{"AWS, carried", with("AWS", "", "", "", true), "06-15 10:20", "06-15 10:00", "06-16 09:58", "06-16 10:01", "06-15 12:00", ""},
		{"Azure, the last hour but one of the month", azure, "06-30 22:20", "06-30 22:00", "07-01 21:58", "07-01 22:01", "06-30 23:00", ""},
		{"Azure, the last hour of the month", azure, "06-30 23:20", "", "07-01 22:58", "07-01 23:01", "", expired},
		{"Google, the month is over", google, "06-15 10:20", "", "07-01 07:58", "07-01 08:01", "", expired},
		{"Google, the month is over, carried", with("GCP", "", "", "", true), "06-15 10:20", "", "07-01 07:58", "07-01 08:01", "07-01 08:00", ""},
		{"Google, its hour has a report", google, "06-15 10:20", "06-15 10:00", "06-30 10:20", "06-30 10:25", "06-15 11:00", ""},
		{"AWS, the entitlement has ended", with("AWS", "", "06-15 11:00", "", false), "06-15 10:20", "06-15 10:00", "06-16 09:58", "06-16 10:01", "", expired},
		{"AWS, the entitlement ends in the next hour", with("AWS", "", "06-15 11:30", "", false), "06-15 10:20", "06-15 10:00", "06-16 09:58", "06-16 10:01", "06-15 11:00", ""},
		{"AWS, cancelled", with("AWS", "", "", "06-15 12:30", false), "06-15 10:20", "06-15 10:00", "06-15 13:28", "06-15 13:31", "", expired},
		{"Azure, cancelled", with("AZURE", "", "", "06-15 12:30", false), "06-15 10:20", "06-15 10:00", "06-16 09:58", "06-16 10:01", "06-15 11:00", ""},
		{"AWS, carried past the end", with("AWS", "", "06-15 11:00", "", true), "06-15 10:20", "06-15 10:00", "06-16 09:58", "06-16 10:01", "", none},
		{"AWS, of before the start", with("AWS", "06-15 12:30", "", "", false), "06-15 10:20", "", "06-16 09:58", "06-16 10:01", "06-15 12:00", ""},
	} {
		hour, problem := test.s.Due(at(test.usage), at(test.after), at(test.created), at(test.now))
		if !hour.Equal(at(test.want)) || problem != test.problem {
			t.Errorf("%s: %s %s, want %s %s", test.name, hour, problem, test.want, test.problem)
		}
	}
}

// Usage that was reported in time, and that a worker looks at within a quarter of an hour, expires
// only if each hour from its own to the end of its month or entitlement is over, or nearly so.
func TestSchedule_UsageThatCameInTimeExpiresOnlyAtAnEnd(t *testing.T) {
	begin := at("06-28 00:00")
	rapid.Check(t, func(t *rapid.T) {
		s := Schedule{Partner: rapid.SampledFrom(metering.Partners).Draw(t, "partner")}
		usage := begin.Add(time.Duration(rapid.Int64Range(0, 4*24*3600).Draw(t, "usage")) * time.Second)
		if rapid.Bool().Draw(t, "ends") {
			s.End = usage.Add(time.Duration(rapid.Int64Range(1, 30*3600).Draw(t, "end")) * time.Second)
		}
		if rapid.Bool().Draw(t, "cancelled") {
			s.Cancel = usage.Add(time.Duration(rapid.Int64Range(1, 30*3600).Draw(t, "cancel")) * time.Second)
		}
		own := metering.HourOf(usage)
		created := s.Deadline(own).Add(-time.Duration(rapid.IntRange(1, 900).Draw(t, "created before the deadline")) * time.Second)
		now := created.Add(time.Duration(rapid.IntRange(0, 900).Draw(t, "looked at after")) * time.Second)
		if _, problem := s.Due(usage, own, created, now); problem != metering.ProblemExpired {
			return
		}
		for hour := own; hour.Before(metering.MonthAfter(s.Partner, own)); hour = hour.Add(time.Hour) {
			ended := !s.End.IsZero() && !hour.Before(s.End) || !s.Cancel.IsZero() && !hour.Before(s.Cancel)
			if !ended && now.Add(sendingMargin/2).Before(s.Deadline(hour)) {
				t.Fatalf("usage of %s, created %s, expires at %s, and the deadline of %s is %s", usage, created, now, hour, s.Deadline(hour))
			}
		}
	})
}

func TestSchedule_Sent(t *testing.T) {
	for _, test := range []struct {
		name               string
		start, end, cancel string
		from, to           string
		ok                 bool
	}{
		{"no bounds", "", "", "", "06-15 10:00", "06-15 11:00", true},
		{"starts in it", "06-15 10:20", "", "", "06-15 10:20", "06-15 11:00", true},
		{"ends in it", "", "06-15 10:20", "", "06-15 10:00", "06-15 10:20", true},
		{"cancelled in it", "", "", "06-15 10:20", "06-15 10:00", "06-15 10:20", true},
		{"cancelled in its first second", "", "", "06-15 10:00:00.5", "06-15 10:00", "06-15 10:00:00.5", true},
		{"cancelled before it", "", "", "06-15 09:30", "", "", false},
		{"cancelled on the hour", "", "", "06-15 10:00", "", "", false},
		{"ended before it", "", "06-15 09:30", "", "", "", false},
		{"starts after it", "06-15 11:00", "", "", "", "", false},
	} {
		s := Schedule{Partner: "AWS", Start: at(test.start), End: at(test.end), Cancel: at(test.cancel)}
		from, to, ok := s.Sent(at("06-15 10:00"))
		if ok != test.ok || ok && (!from.Equal(at(test.from)) || !to.Equal(at(test.to))) {
			t.Errorf("%s: %s to %s, %t", test.name, from, to, ok)
		}
	}
}

// For all usage, a due hour comes after the hour before, within the entitlement, and its window is
// open. What is sent for it lies in the hour.
func TestSchedule_DueHoursAreOpen(t *testing.T) {
	begin := at("10-28 00:00")
	moment := func(t *rapid.T, label string) time.Time {
		return begin.Add(time.Duration(rapid.Int64Range(0, 8*24*60*60*10).Draw(t, label)) * 100 * time.Millisecond)
	}
	bound := func(t *rapid.T, label string) time.Time {
		if rapid.Bool().Draw(t, label+" is a bound") {
			return moment(t, label)
		}
		return time.Time{}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := Schedule{
			Partner: rapid.SampledFrom(metering.Partners).Draw(t, "partner"),
			Start:   bound(t, "start"), End: bound(t, "end"), Cancel: bound(t, "cancel"),
			Lock: time.Duration(rapid.IntRange(0, 50).Draw(t, "lock")) * time.Minute, Carry: rapid.Bool().Draw(t, "carry"),
		}
		usage, now := moment(t, "usage"), moment(t, "now")
		created := metering.Earlier(moment(t, "created"), now)
		var after time.Time
		for range 30 {
			due, problem := s.Due(usage, after, created, now)
			if problem != "" {
				if !due.IsZero() {
					t.Fatalf("%s and %s", due, problem)
				}
				return
			}
			switch own := metering.HourOf(usage); {
			case !due.After(after) && !after.IsZero(), due.Before(own):
				t.Fatalf("due %s after %s", due, after)
			case !now.Before(s.Deadline(due)):
				t.Fatalf("due %s, whose window is over", due)
			case !s.End.IsZero() && !due.Before(s.End), !s.Cancel.IsZero() && !due.Before(s.Cancel):
				t.Fatalf("due %s, after the entitlement", due)
			case !s.Carry && !metering.MonthAfter(s.Partner, due).Equal(metering.MonthAfter(s.Partner, own)):
				t.Fatalf("due %s, in another month than %s", due, own)
			}
			if from, to, ok := s.Sent(due); ok && (from.Before(due) || !from.Before(due.Add(time.Hour)) || !from.Before(to) || to.After(due.Add(time.Hour))) {
				t.Fatalf("%s is sent as %s to %s", due, from, to)
			}
			after = due
		}
	})
}

// An hour stays open for the connection's lock, or for half an hour if that is less. Then half an
// hour is left to send it.
func TestSchedule_ClosingKeepsTheLock(t *testing.T) {
	for _, partner := range metering.Partners {
		for _, lock := range []time.Duration{0, 5 * time.Minute, 10 * time.Minute, 30 * time.Minute, 50 * time.Minute, time.Hour, 12 * time.Hour} {
			if partner == "GCP" && lock >= time.Hour {
				continue // a connection can't have it
			}
			s := Schedule{Partner: partner, Lock: lock}
			for hour := at("01-01 00:00"); hour.Before(at("2027-02-01 00:00")); hour = hour.Add(time.Hour) {
				end, closes, deadline := hour.Add(time.Hour), s.Closes(hour), s.Deadline(hour)
				if open := closes.Sub(end); open < min(lock, 30*time.Minute) || open > lock || deadline.Sub(closes) < 30*time.Minute {
					t.Fatalf("%s with %s: %s closes at %s, its deadline is %s", partner, lock, hour, closes, deadline)
				}
			}
		}
	}
}

// A cancellation leaves 10 minutes for the usage before it, and 50 to send that.
func TestSchedule_CancellationLeavesTimeOnBothSides(t *testing.T) {
	begin := at("06-29 00:00")
	rapid.Check(t, func(t *rapid.T) {
		s := Schedule{Partner: rapid.SampledFrom(metering.Partners).Draw(t, "partner"), Lock: 10 * time.Minute}
		hour := begin.Add(time.Duration(rapid.IntRange(0, 96).Draw(t, "hour")) * time.Hour)
		s.Cancel = hour.Add(time.Duration(rapid.IntRange(1, 3*3600).Draw(t, "cancelled after")) * time.Second)
		_, end, ok := s.Sent(hour)
		if closes := s.Closes(hour); !ok || closes.Sub(end) != 10*time.Minute || s.Deadline(hour).Sub(closes) < 50*time.Minute {
			t.Fatalf("%s ends at %s and closes at %s, its deadline is %s", hour, end, closes, s.Deadline(hour))
		}
	})
}

func TestScheduleOf_HasThePartnersDefaults(t *testing.T) {
	e := &metering.Entitlement{Partner: "GCP", StartTime: at("06-01 00:00"), EndTime: at("06-02 00:00"), CancelTime: at("06-03 00:00")}
	want := Schedule{Partner: "GCP", Start: e.StartTime, End: e.EndTime, Cancel: e.CancelTime, Lock: 10 * time.Minute}
	if s := ScheduleOf(e, metering.Connection{}); s != want {
		t.Errorf("%+v", s)
	}
	five := 5
	want.Lock, want.Carry = 5*time.Minute, true
	if s := ScheduleOf(e, metering.Connection{Partner: "GCP", LockMinutes: &five, LateUsage: metering.LateUsageCarried}); s != want {
		t.Errorf("%+v", s)
	}
}
