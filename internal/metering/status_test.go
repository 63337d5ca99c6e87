package metering

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The table has the transitions of the contract and no other.
func TestTransitions_AreTheContracts(t *testing.T) {
	want := map[Status][]Status{
		"":                  {StatusCreated, StatusInvalid},
		StatusCreated:       {StatusDeleted, StatusReportPending, StatusReportFailed},
		StatusInvalid:       {StatusCreated, StatusDeleted},
		StatusReportPending: {StatusReported, StatusReportFailed},
		StatusReportFailed:  {StatusCreated, StatusInvalid, StatusReported},
		StatusReported:      nil,
		StatusDeleted:       nil,
	}
	if len(want) != len(Statuses)+1 {
		t.Fatalf("%d statuses, want %d", len(want)-1, len(Statuses))
	}
	for from, to := range want {
		var got []Status
		for _, tr := range Transitions {
			if tr.From == from {
				got = append(got, tr.To)
			}
		}
		slices.Sort(got)
		slices.Sort(to)
		if !slices.Equal(got, to) {
			t.Errorf("from %q to %q, want %q", from, got, to)
		}
	}
	if !slices.Equal(Deletable, []Status{StatusCreated, StatusInvalid}) || !slices.Equal(Retryable, []Status{StatusInvalid, StatusReportFailed}) {
		t.Errorf("deletable in %q, retryable in %q", Deletable, Retryable)
	}
}

// A walk of any causes: the status changes only as the table says, a status in which nothing is
// billed yet can be deleted, one whose outcome is not known can be neither deleted nor retried, and
// what is deleted or reported stays so.
func TestTransitions_RandomWalks(t *testing.T) {
	causes := []Cause{CauseReport, CauseDelete, CauseRetry, CauseClaim, CauseSettle, CauseExpire, CauseResolve}
	rapid.Check(t, func(t *rapid.T) {
		status, claimed := Status(""), false
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			cause := rapid.SampledFrom(causes).Draw(t, "cause")
			to := rapid.SampledFrom(Statuses).Draw(t, "to")
			if !Allowed(status, to, cause) {
				continue
			}
			switch {
			case (cause == CauseReport) != (status == ""):
				t.Fatalf("%s of a group that is %q", cause, status)
			case status == StatusDeleted || status == StatusReported:
				t.Fatalf("%s changes %s to %s", cause, status, to)
			case status == StatusReportPending && cause != CauseSettle:
				t.Fatalf("%s changes a group whose outcome is not known", cause)
			case to == StatusDeleted && (status != StatusCreated && status != StatusInvalid):
				t.Fatalf("%s deletes a group that is %s", cause, status)
			case to == StatusReported && !claimed:
				t.Fatal("a group was reported that no report took in")
			case to == StatusReportPending && status != StatusCreated:
				t.Fatalf("a report takes in a group that is %s", status)
			}
			// An expired group was never sent, but an operator may say that it was.
			claimed = claimed || cause == CauseClaim || cause == CauseExpire
			status = to
		}
	})
}
