package reports

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
)

func TestStep_AcceptedIsWhatItHasMadeSo(t *testing.T) {
	open := OpenHour("org1", "ent1", at("06-15 10:00"))
	hour := func(spelled string) *Hour {
		h := decidedHour(spelled)
		for i := range h.Sealed.Records {
			if r := &h.Sealed.Records[i]; r.Dimension != "zero" {
				r.Quantity = quantities("q 2")["q"]
			}
		}
		return &h
	}
	for _, test := range []struct {
		before, after *Hour
		want          string
	}{
		{nil, &open, ""},
		{&open, hour("a:- b:R"), ""},
		{&open, hour("a:A"), "a"},
		{hour("a:- b:- c:- zero:-"), hour("a:A b:- c:A zero:A"), "a c"},
		{hour("a:A b:-"), hour("a:A b:A"), "b"},
		{hour("a:A b:A"), hour("a:A b:A"), ""},
		{hour("a:C b:U c:R"), hour("a:A b:A c:R"), "a b"},
		{nil, hour("a:A"), "a"},
	} {
		var got []string
		for _, r := range (&Step{Before: test.before, After: test.after}).Accepted() {
			got = append(got, r.Dimension)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%v, want %s", got, test.want)
		}
	}
}

// What stands for a conflict that was resolved as billed is the same to the daily record as to the
// reconciliation: what the marketplace has.
func TestDaily_AddsWhatStandsForAConflict(t *testing.T) {
	for _, has := range []string{"0", "1.5", "2", "7"} {
		h := decidedHour("a:C")
		h.Sealed.Partner = "AZURE"
		r := &h.Sealed.Records[0]
		r.Quantity, r.UnitPrice = quantities("q 2")["q"], quantities("p 10")["p"]
		difference := metering.MustExact(has).Sub(metering.ExactOf(r.Quantity))
		r.Outcome.Difference, r.Attempts = &difference, []Attempt{{Response: Response{Result: Duplicate}}}
		after, _, err := h.Resolve(Ledger{}, "a", true, "ann", at("06-15 12:00"))
		if err != nil {
			t.Fatal(err)
		}
		accepted := (&Step{Before: &h, After: &after}).Accepted()
		if len(accepted) != 1 {
			t.Fatalf("%+v", accepted)
		}
		day, tallies := (*Daily)(nil).Add(&accepted[0]), map[Meter]*Tally{}
		after.Tally(tallies)
		if tally := tallies[Meter{Dimension: "a"}].Accepted; day.Quantity.Cmp(tally) != 0 || day.Quantity.Cmp(metering.MustExact(has)) != 0 || day.Amount.Cmp(metering.MustExact(has).Mul(metering.MustExact("10"))) != 0 {
			t.Errorf("%s: the day has %s, %s, the reconciliation %s", has, day.Quantity, day.Amount, tally)
		}
	}
}

// A response that comes later may say that something else stands than what was sent: the day has
// that, as the reconciliation does, and each response is added once.
func TestDaily_FollowsWhatStands(t *testing.T) {
	accepted := decidedHour("a:A")
	r := &accepted.Sealed.Records[0]
	r.Quantity, r.UnitPrice = quantities("q 2")["q"], quantities("p 10")["p"]
	standing := func(has string) *Hour {
		h := decidedHour("a:A")
		h.Sealed.Records[0] = *r
		difference := metering.MustExact(has).Sub(metering.ExactOf(r.Quantity))
		h.Sealed.Records[0].Outcome.Difference = &difference
		return &h
	}
	var day *Daily
	before := (*Hour)(nil)
	for _, step := range []struct {
		after      *Hour
		want, adds string
	}{{&accepted, "2 20", "2"}, {&accepted, "2 20", ""}, {standing("2"), "2 20", ""}, {standing("7"), "7 70", "5"}, {standing("7"), "7 70", ""}, {standing("1.5"), "1.5 15", "-5.5"}} {
		adds := ""
		for _, a := range (&Step{Before: before, After: step.after}).Accepted() {
			adds += a.Quantity.String()
			sum := day.Add(&a)
			day = &sum
		}
		if got := day.Quantity.String() + " " + day.Amount.String(); got != step.want || adds != step.adds {
			t.Errorf("the day has %s, added %q; want %s, %q", got, adds, step.want, step.adds)
		}
		before = step.after
	}
}

// The sum of a day is exact, and an amount that is not complete is none.
func TestDaily_AddIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var day *Daily
		var quantity, amount metering.Exact
		complete := true
		for range rapid.IntRange(1, 30).Draw(t, "hours") {
			q := quantities(fmt.Sprintf("q %d.%06d", rapid.IntRange(0, 1e9).Draw(t, "whole"), rapid.IntRange(1, 999_999).Draw(t, "fraction")))["q"]
			a := Acceptance{Quantity: metering.ExactOf(q)}
			if rapid.IntRange(0, 30).Draw(t, "price") > 0 {
				a.UnitPrice = quantities("p 0.000000000000000007")["p"]
			}
			complete = complete && a.UnitPrice.Sign() > 0
			quantity = quantity.Add(metering.ExactOf(q))
			amount = amount.Add(metering.ExactOf(q).Mul(metering.ExactOf(a.UnitPrice)))
			sum := day.Add(&a)
			day = &sum
		}
		if day.Quantity.Cmp(quantity) != 0 || complete != (day.Amount != nil) || complete && day.Amount.Cmp(amount) != 0 {
			t.Fatalf("%s and %v, want %s and %s", day.Quantity, day.Amount, quantity, amount)
		}
	})
}
