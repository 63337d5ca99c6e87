package reports

import (
	"errors"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

func billableMember(id string, records string, metrics ...string) Member {
	m := Member{Group: &metering.Group{ID: id, Partner: "AWS", BuyerID: "b1", ProductID: "p1", Records: quantities(records)}}
	for _, metric := range metrics {
		m.Group.MetaInfo.BillableRecords = append(m.Group.MetaInfo.BillableRecords, metering.BillableRecord{Key: metric, Quantity: quantityOf("1")})
	}
	return m
}

// An hour that can't be sealed waits until its window is over. Then all of it is rejected, and each
// of its groups is converted again by a retry.
func TestExpire_RejectsAllOfTheHour(t *testing.T) {
	hour := at("06-15 10:00")
	members := []Member{
		billableMember("plain", "a 1.5, b 2"), billableMember("metric", "c 3", "m1"), billableMember("nothing yet", "", "m2"),
		billableMember("both", "c 1, d 2", "m1", "m3"),
	}
	inPart := billableMember("in part", "a 1, e 5")
	inPart.Only, inPart.Before = quantities("e 5"), map[string]Kind{"a": Accepted, "e": Rejected}
	members = append(members, inPart)
	for _, test := range []struct {
		name     string
		terms    *metering.Terms
		deadline time.Time
		wants    string // partner, buyer
	}{
		{"the config can't be read", &metering.Terms{Entitlement: entitlementOf("AWS", "10", "a 2 3"), Config: configOf("AWS", "newer")}, hour.Add(24 * time.Hour), "AWS "},
		{"no entitlement", &metering.Terms{Config: configOf("AWS")}, hour.Add(24 * time.Hour), "AWS b1"},
		{"no terms", nil, hour.Add(24 * time.Hour), "AWS b1"},
		{"cancelled", &metering.Terms{Entitlement: cancelledAt(entitlementOf("AWS", "0", ""), hour.Add(30*time.Minute)), Config: configOf("AWS", "newer")}, hour.Add(90 * time.Minute), "AWS "},
		{"Azure, cancelled", &metering.Terms{Entitlement: cancelledAt(entitlementOf("AZURE", "0", ""), hour.Add(30*time.Minute)), Config: configOf("AZURE", "newer")}, hour.Add(24 * time.Hour), "AZURE "},
		{"Google", &metering.Terms{Entitlement: entitlementOf("GCP", "0", ""), Config: configOf("GCP", "newer")}, at("07-01 08:00"), "GCP "},
	} {
		t.Run(test.name, func(t *testing.T) {
			open := OpenHour("org1", "ent1", hour)
			u := Unsealed{Terms: test.terms, Member: members[0].Group, Groups: len(members), Usage: acceptedUsage(members), Reason: "the reason"}
			if h, err := open.Expire(&u, test.deadline.Add(-time.Second)); !errors.Is(err, ErrEarly) {
				t.Errorf("before the deadline: %s, %v", h.State, err)
			}
			h, err := open.Expire(&u, test.deadline)
			if err != nil || h.State != StateDecided || h.Version != 2 || h.Succeeded() || h.Sealed.Groups != len(members) {
				t.Fatalf("%+v, %v", h, err)
			}
			if got := string(h.Sealed.Partner) + " " + string(h.Sealed.Buyer); got != test.wants {
				t.Errorf("it is of %q, want %q", got, test.wants)
			}
			all := ""
			for _, r := range h.Sealed.Records {
				all += r.Dimension + " " + r.Members.String() + "; "
				if r.Outcome.Kind != Rejected || r.Outcome.Evidence != EvidenceSeal || r.Outcome.Code != metering.ProblemExpired ||
					r.Outcome.Reason != "the window of the hour ended before it could be sealed: the reason" ||
					r.Quantity.Sign() != 0 || r.CarryIn.Sign() != 0 || r.CarryOut.Sign() != 0 || r.Drawn.Sign() != 0 || r.DrawnAmount.Sign() != 0 {
					t.Errorf("%+v", r)
				}
			}
			if want := "a 1.5; b 2; c 4; d 2; e 5; m2 0; "; all != want {
				t.Errorf("the records are %s, want %s", all, want)
			}
			for _, m := range members {
				applied, err := h.Apply(m)
				if err != nil || applied.Status != metering.StatusReportFailed || len(applied.Problems) == 0 || applied.Problems[0].Code != metering.ProblemExpired {
					t.Errorf("%s: %+v, %v", m.Group.ID, applied, err)
				}
				retry, err := RetryOf(m.Group, applied.Dimensions)
				if err != nil || retry.Convert != (m.Only == nil) || m.Only != nil && len(retry.Only) != 1 {
					t.Errorf("a retry of %s: %+v, %v", m.Group.ID, retry, err)
				}
			}
			if _, err := h.Expire(&u, test.deadline); !errors.Is(err, ErrState) {
				t.Errorf("again: %v", err)
			}
		})
	}
}

func cancelledAt(e *metering.Entitlement, at time.Time) *metering.Entitlement {
	e.Status, e.CancelTime = metering.EntitlementCancelled, at
	return e
}

// The last of the groups was deleted: there is nothing to wait for, even if nobody knows whose hour
// it was.
func TestExpire_WithoutMembersIsAtOnce(t *testing.T) {
	h, err := OpenHour("org1", "ent1", at("06-15 10:00")).Expire(&Unsealed{}, at("06-15 11:00"))
	if err != nil || h.State != StateDecided || len(h.Sealed.Records) != 0 || !h.Succeeded() {
		t.Errorf("%+v, %v", h, err)
	}
}

// Another worker was first.
func TestExpire_OnlyOfAnOpenHour(t *testing.T) {
	h, _ := sealed(t, entitlementOf("AWS", "0", ""), nil, exacts("a 1"), Ledger{})
	if _, err := h.Expire(&Unsealed{}, at("06-17 10:00")); !errors.Is(err, ErrState) {
		t.Error(err)
	}
}

func TestSeal_WithoutAnEntitlement(t *testing.T) {
	s := Schedule{}
	for _, terms := range []*metering.Terms{nil, {Config: configOf("AWS")}} {
		if h, _, err := OpenHour("org1", "ent1", at("06-15 10:00")).Seal(terms, &s, metering.HourUsage{Totals: exacts("a 1")}, Ledger{}); err == nil {
			t.Errorf("it is %+v", h)
		}
	}
}
