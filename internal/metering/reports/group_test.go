package reports

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// decidedHour has a record for each spelled outcome: A accepted, R rejected, C conflict, U unknown,
// - undecided.
func decidedHour(spelled string) Hour {
	outcomes := map[string]Outcome{
		"A": {Kind: Accepted}, "R": {Kind: Rejected, Code: metering.ProblemMarketplaceRefused, Reason: "it says no"},
		"C": {Kind: Conflict, Code: metering.ProblemConflict}, "U": {Kind: Unknown, Code: metering.ProblemOutcomeUnknown}, "-": {},
	}
	h := OpenHour("org1", "ent1", at("06-15 10:00"))
	h.State, h.Sealed = StateDecided, &Sealed{Destinations: map[string][]string{"m1": {"a", "b"}, "m2": {"b"}}}
	for _, pair := range strings.Fields(spelled) {
		dimension, outcome, _ := strings.Cut(pair, ":")
		h.Sealed.Records = append(h.Sealed.Records, Record{Dimension: dimension, Outcome: outcomes[outcome]})
	}
	return h
}

func TestApply_EachOutcome(t *testing.T) {
	for _, test := range []struct {
		name      string
		outcomes  string
		member    Member
		before    map[string]Kind
		status    metering.Status
		problems  string
		remembers string
	}{
		{"accepted", "a:A b:R", Member{Group: &metering.Group{Records: quantities("a 1")}}, nil, metering.StatusReported, "", "map[a:ACCEPTED]"},
		{"one fails", "a:A b:R", Member{Group: &metering.Group{Records: quantities("a 1, b 1")}}, nil, metering.StatusReportFailed, "MARKETPLACE_REFUSED /records/b", "map[a:ACCEPTED b:REJECTED]"},
		{
			"all fail", "a:C b/~:U c:R",
			Member{Group: &metering.Group{Records: quantities("a 1, b/~ 1, c 1")}},
			nil, metering.StatusReportFailed,
			"CONFLICT /records/a, OUTCOME_UNKNOWN /records/b~1~0, MARKETPLACE_REFUSED /records/c", "map[a:CONFLICT b/~:UNKNOWN c:REJECTED]",
		},
		{"no records", "", Member{Group: &metering.Group{}}, nil, metering.StatusReported, "", "map[]"},
		{
			"metrics", "a:A b:R",
			Member{Group: &metering.Group{Records: quantities("old 1"), MetaInfo: metering.MetaInfo{BillableRecords: []metering.BillableRecord{{Key: "m1"}, {Key: "m2"}}}}},
			nil,
			metering.StatusReportFailed, "MARKETPLACE_REFUSED /records/b", "map[a:ACCEPTED b:REJECTED]",
		},
		{"metric mapped to nothing", "a:R", Member{Group: &metering.Group{MetaInfo: metering.MetaInfo{BillableRecords: []metering.BillableRecord{{Key: "m3"}}}}}, nil, metering.StatusReported, "", "map[]"},
		{"what failed before", "b:A", Member{Group: &metering.Group{Records: quantities("a 1, b 1")}, Only: quantities("b 1")}, map[string]Kind{"a": Accepted, "b": Rejected}, metering.StatusReported, "", "map[a:ACCEPTED b:ACCEPTED]"},
		{"fails again", "b:U", Member{Group: &metering.Group{Records: quantities("a 1, b 1")}, Only: quantities("b 1")}, map[string]Kind{"a": Accepted, "b": Rejected}, metering.StatusReportFailed, "OUTCOME_UNKNOWN /records/b", "map[a:ACCEPTED b:UNKNOWN]"},
		{"the rest was accepted before", "b:A", Member{Group: &metering.Group{Records: quantities("a 1, b 1")}, InReport: true}, nil, metering.StatusReported, "", "map[b:ACCEPTED]"},
		{"the rest was accepted before, fails", "b:R", Member{Group: &metering.Group{Records: quantities("a 1, b 1")}, InReport: true}, nil, metering.StatusReportFailed, "MARKETPLACE_REFUSED /records/b", "map[b:REJECTED]"},
	} {
		h := decidedHour(test.outcomes)
		test.member.Before = test.before
		applied, err := h.Apply(test.member)
		var problems []string
		for _, p := range applied.Problems {
			problems = append(problems, string(p.Code)+" "+p.Path)
			if p.Severity != metering.SeverityError || p.Hint == "" || !strings.Contains(p.Message, h.ID()) {
				t.Errorf("%s: %+v", test.name, p)
			}
		}
		if err != nil || applied.Status != test.status || strings.Join(problems, ", ") != test.problems || fmt.Sprint(applied.Dimensions) != test.remembers {
			t.Errorf("%s: %+v, %v", test.name, applied, err)
		}
	}
}

// What a problem says to do must neither bill usage twice nor lose it, and must be possible.
func TestApply_SaysWhatToDo(t *testing.T) {
	for _, test := range []struct {
		name     string
		outcome  Outcome
		has, not string
	}{
		{"refused", Outcome{Kind: Rejected, Evidence: EvidenceResponse, Code: metering.ProblemMarketplaceRefused}, "retry the group before its reportBy", "is over"},
		{"refused until the end", Outcome{Kind: Rejected, Evidence: EvidenceWindow, Code: metering.ProblemNotSubscribed}, "the window of the hour is over", "reportBy"},
		{"not sent", Outcome{Kind: Rejected, Evidence: EvidenceWindow, Code: metering.ProblemExpired}, "still to be billed", "reportBy"},
		{"no hour", Outcome{Kind: Rejected, Evidence: EvidenceSeal, Code: metering.ProblemNoHourLeft}, "startTime, endTime or cancelTime", "reportBy"},
		{"no price", Outcome{Kind: Rejected, Evidence: EvidenceSeal, Code: metering.ProblemNoPrice}, "listPrice", "is over"},
		{"resolved", Outcome{Kind: Rejected, Evidence: EvidenceResolved, Code: metering.ProblemMarketplaceRefused}, "retry the group before its reportBy", "correct"},
	} {
		h := decidedHour("a:A")
		h.Sealed.Records = append(h.Sealed.Records, Record{Dimension: "b", Outcome: test.outcome})
		for records, once := range map[string]string{"b 1": "only after the DELETE succeeded", "a 1, b 1": "also if a retry is refused"} {
			applied, err := h.Apply(Member{Group: &metering.Group{Records: quantities(records)}})
			if err != nil || len(applied.Problems) != 1 {
				t.Fatalf("%s: %+v, %v", test.name, applied, err)
			}
			hint := applied.Problems[0].Hint
			if !strings.Contains(hint, test.has) || strings.Contains(hint, test.not) || !strings.Contains(hint, once) || !strings.Contains(hint, "billed twice") {
				t.Errorf("%s, %s: %s", test.name, records, hint)
			}
		}
	}
	h := decidedHour("a:C")
	applied, err := h.Apply(Member{Group: &metering.Group{Records: quantities("a 1")}})
	if err != nil || !strings.Contains(applied.Problems[0].Hint, "report the units that are missing") {
		t.Errorf("%+v, %v", applied, err)
	}
}

func TestApply_NeedsOutcomes(t *testing.T) {
	h := decidedHour("a:- b:A")
	if _, err := h.Apply(Member{Group: &metering.Group{Records: quantities("a 1")}}); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	if _, err := h.Apply(Member{Group: &metering.Group{Records: quantities("c 1")}}); err == nil || errors.Is(err, ErrState) {
		t.Error(err)
	}
	open := OpenHour("org1", "ent1", at("06-15 10:00"))
	if _, err := open.Apply(Member{Group: &metering.Group{Records: quantities("a 1")}}); !errors.Is(err, ErrState) {
		t.Error(err)
	}
}

func TestRetryOf_EachState(t *testing.T) {
	group := &metering.Group{Records: quantities("a 1, b 2, c 3")}
	for _, test := range []struct {
		name    string
		states  map[string]Kind
		convert bool
		only    string
		fails   bool
	}{
		{"never in a report", nil, true, "", false},
		{"all rejected", map[string]Kind{"a": Rejected, "b": Rejected}, true, "", false},
		{"all rejected, of a mapping since", map[string]Kind{"z": Rejected}, true, "", false},
		{"some rejected", map[string]Kind{"a": Accepted, "b": Rejected, "c": Rejected}, false, "map[b:2 c:3]", false},
		{"some rejected, not stored", map[string]Kind{"a": Accepted, "z": Rejected}, false, "", true},
		{"all accepted", map[string]Kind{"a": Accepted}, false, "", true},
		{"unknown", map[string]Kind{"a": Rejected, "b": Unknown}, false, "", true},
		{"conflict", map[string]Kind{"a": Rejected, "b": Conflict}, false, "", true},
		{"undecided", map[string]Kind{"a": Rejected, "b": Undecided}, false, "", true},
	} {
		retry, err := RetryOf(group, test.states)
		only := ""
		if retry.Only != nil {
			only = fmt.Sprint(retry.Only)
		}
		if (err != nil) != test.fails || retry.Convert != test.convert || only != test.only || err != nil && metering.CodeOf(err) != metering.Invalid {
			t.Errorf("%s: %+v, %v", test.name, retry, err)
		}
	}
}
