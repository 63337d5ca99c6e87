package reports

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
)

const meteredResource = "cccccccc-0000-4000-8000-00000000000A"

// tallied reads the records of a meter on a day, each in an hour of its own: "A 1.5, U 2".
//
//	A  accepted      C  conflict     R  rejected    P  sent, no outcome    N  never sent
//	U  unknown       u  unknown, in an hour that is not settled
//	b  unknown, a late response billed it
//	+  accepted by an operator that saw 1 more
//	-  rejected by an operator that saw 1 more
//	L  unknown, the attempts are lost
//	S  unknown, sealed in doubt after a restore
//	l  as L, and an operator says that it was billed
func tallied(spelled string) *Tally {
	day := map[Meter]*Tally{}
	for i, text := range strings.Split(spelled, ", ") {
		kind, quantity, ok := strings.Cut(text, " ")
		if !ok {
			continue
		}
		more := metering.MustExact("1")
		r := Record{Dimension: "d", Quantity: quantityOf(quantity), Attempts: history("?")}
		state := StateSettled
		switch kind {
		case "A":
			r.Outcome.Kind = Accepted
		case "R":
			r.Outcome.Kind = Rejected
		case "U":
			r.Outcome.Kind = Unknown
		case "b":
			r.Outcome.Kind, r.Attempts = Unknown, history("B")
		case "L":
			r.Outcome.Kind, r.Attempts = Unknown, nil
		case "S":
			r.Outcome, r.Attempts = Outcome{Kind: Unknown, Evidence: EvidenceRestore}, nil
		case "l":
			r.Outcome, r.Attempts = Outcome{Kind: Accepted, Evidence: EvidenceResolved}, nil
		case "u":
			r.Outcome.Kind, state = Unknown, StateDecided
		case "C":
			r.Outcome = Outcome{Kind: Conflict, Difference: &more}
		case "P":
			state = StateSealed
		case "N":
			r.Attempts, state = nil, StateSealed
		case "+":
			r.Outcome = Outcome{Kind: Accepted, Evidence: EvidenceResolved, Difference: &more}
		case "-":
			r.Outcome = Outcome{Kind: Rejected, Evidence: EvidenceResolved, Difference: &more}
		default:
			panic(kind)
		}
		h := OpenHour("org1", "ent1", at("06-15 00:00").Add(time.Duration(i)*time.Hour))
		h.State, h.Sealed = state, &Sealed{Partner: "AZURE", Marketplace: metering.MarketplaceIDs{ResourceID: meteredResource}, Records: []Record{r}}
		h.Tally(day)
	}
	tally := day[Meter{strings.ToLower(meteredResource), "d"}]
	if tally == nil {
		tally = &Tally{}
	}
	return tally
}

func TestCompare_EachDay(t *testing.T) {
	const (
		young  = "young"  // less may be a delay
		mature = "mature" //
		blind  = "blind"  // mature, but nothing of the resource is visible
	)
	none := Processed{}
	sum := func(q float64) Processed { return Processed{q, 1, true, "Accepted"} }
	partly := func(q float64) Processed { return Processed{q, 1, false, "Submitted"} }
	for _, test := range []struct {
		records   string
		processed Processed
		day       string
		want      Comparison
	}{
		{"A 3", sum(3), young, Equal},
		{"A 3", sum(3), mature, Equal},
		{"A 3", partly(3), mature, Equal},
		{"A 3", none, young, Unsettled},
		{"A 3", none, mature, Less},
		{"A 3", none, blind, Less},
		{"A 3", partly(0), young, Unsettled},
		{"A 3", partly(0), mature, Less},
		{"A 3", sum(3.5), young, More},
		{"A 3", sum(3.5), mature, More},
		{"A 3, A 1", sum(3), mature, Less},
		{"A 3, A 1", sum(4), mature, Equal},
		// Nothing was accepted, but something was processed.
		{"", sum(2), young, More},
		{"R 2", sum(2), young, More},
		{"R 2", none, mature, Equal},
		{"N 2", none, mature, Equal},
		// What was sent and has no outcome may be in the sum, or may not be.
		{"A 3, P 2", sum(3), mature, Equal},
		{"A 3, P 2", sum(5), young, Unsettled},
		{"A 3, P 2, P 4", sum(5), mature, Unsettled},
		{"A 3, P 2", sum(5.5), young, More},
		{"A 3, P 2", sum(1), mature, Less},
		{"A 3, u 2", sum(5), mature, Unsettled},
		{"A 3, u 2", sum(3), mature, Equal},
		// One record is UNKNOWN.
		{"A 3, U 2", sum(5), young, WasBilled},
		{"A 3, U 2", sum(5), mature, WasBilled},
		{"A 3, U 2", partly(5), mature, More},
		{"A 3, U 2", sum(3), young, Equal},
		{"A 3, U 2", sum(3), mature, WasNotBilled},
		{"A 3, U 2", partly(3), mature, Equal},
		{"A 3, U 2", sum(4), mature, More},
		{"A 3, U 2", sum(2), mature, Less},
		{"A 3, b 2", sum(3), mature, Equal},
		{"A 3, b 2", sum(5), mature, WasBilled},
		{"U 2", sum(2), young, WasBilled},
		{"U 2", none, young, Equal},
		{"U 2", none, mature, WasNotBilled},
		{"U 2", none, blind, Equal},
		{"U 2", partly(0), mature, Equal},
		{"R 4, N 1, U 2", none, mature, WasNotBilled},
		{"A 3, L 2", sum(5), mature, WasBilled},
		{"A 3, L 2, U 2", sum(5), mature, More},
		{"A 3, l 2", sum(5), mature, Equal},
		// What the lost table sent may have been another record.
		{"A 3, S 2", sum(5), mature, More},
		{"A 3, S 2", sum(3), mature, Equal},
		{"A 3, S 2, U 2", sum(5), mature, More},
		{"A 3, S 0, U 2", sum(3), mature, Equal},
		// With another open record, the sum does not decide.
		{"A 3, U 2, U 4", sum(5), mature, More},
		{"A 3, U 2, U 4", sum(9), mature, More},
		{"A 3, U 2, U 4", sum(3), mature, Equal},
		{"A 3, U 2, P 4", sum(3), mature, Equal},
		{"A 3, U 2, P 4", sum(5), mature, Unsettled},
		{"A 3, U 2, u 4", sum(5), mature, Unsettled},
		{"A 3, U 2, C 1", sum(5), mature, More},
		{"A 3, U 2, C 1", sum(3), mature, Equal},
		// A conflict stands beside what was accepted, until an operator has seen it.
		{"A 3, C 1", sum(5), young, More},
		{"A 3, + 1", sum(5), mature, Equal},
		{"A 3, - 1", sum(5), mature, Equal},
		{"A 3, - 1", sum(3), mature, Less},
		{"A 3, - 1, U 4", sum(9), mature, WasBilled},
		{"A 3, - 1, U 4", sum(5), mature, WasNotBilled},
		// Quantities that vanish in a sum of doubles.
		{"A 1" + strings.Repeat(", A 0.00000000000000011", 23), Processed{1, 24, true, "Accepted"}, mature, Equal},
		{"A 1000000000000000, U 0.0001", sum(1e15), mature, Equal},
	} {
		got := tallied(test.records).Compare(test.processed, test.day != blind, test.day != young)
		if got != test.want {
			t.Errorf("%q, processed %+v, %s: %s, want %s", test.records, test.processed, test.day, got, test.want)
		}
	}
}

func TestTally_Open(t *testing.T) {
	for records, want := range map[string]bool{
		"": false, "A 1": false, "R 1": false, "N 1": false, "C 1": false, "A 1, U 2": true, "A 1, P 2": true, "u 2": true, "+ 1": false,
	} {
		if got := tallied(records).Open(); got != want {
			t.Errorf("%q: %t", records, got)
		}
	}
}

// Azure adds up doubles in some order. Whatever it is, the sum is recognized; and if a record that
// the sum has, or lacks, is UNKNOWN, it is never decided wrongly.
func TestCompare_SumsOfDoublesInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 24).Draw(t, "records")
		var records []string
		var held []metering.Quantity
		for range n {
			units, digits := rapid.Int64Range(1, 999_999_999_999_999).Draw(t, "units"), rapid.IntRange(0, 15).Draw(t, "digits")
			exact, err := metering.ParseQuantity(fmt.Sprintf("%de-%d", units, digits))
			if err != nil {
				t.Fatal(err)
			}
			q, err := metering.ExactOf(exact).Held("AZURE")
			if err != nil {
				t.Fatal(err)
			}
			if q.Sign() == 0 {
				t.Skip("nothing is left of it")
			}
			held = append(held, q)
			records = append(records, "A "+q.String())
		}
		add := func(quantities []metering.Quantity) float64 {
			sum := 0.0
			for _, q := range quantities {
				double, err := strconv.ParseFloat(q.String(), 64)
				if err != nil {
					t.Fatal(err)
				}
				sum += double
			}
			return sum
		}
		order := rapid.Permutation(held).Draw(t, "order")
		all := Processed{add(order), n, true, "Accepted"}
		for _, mature := range []bool{false, true} {
			if got := tallied(strings.Join(records, ", ")).Compare(all, true, mature); got != Equal {
				t.Fatalf("%v is not the sum of %v: %s", all.Quantity, records, got)
			}
		}
		records[0] = "U " + held[0].String()
		without := Processed{add(held[1:]), n - 1, n > 1, "Accepted"}
		with, not := tallied(strings.Join(records, ", ")).Compare(all, true, true), tallied(strings.Join(records, ", ")).Compare(without, true, true)
		if with == WasNotBilled || not == WasBilled {
			t.Fatalf("%v: with it %s, without it %s", records, with, not)
		}
		if all.Quantity > without.Quantity*(1+1e-13) && (with != WasBilled || not != WasNotBilled) {
			t.Fatalf("%v can be told apart: with it %s, without it %s", records, with, not)
		}
	})
}

// Whatever the day is: if all that Azure has accepted is in the sum, no record is resolved
// otherwise than it is, and what is counted as a difference is one.
func TestCompare_NeverDecidesWrongly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []string
		var accepted, unknown, perhaps, sum int
		billed := false
		p := Processed{Complete: rapid.Bool().Draw(t, "complete"), Status: "s"}
		for range rapid.IntRange(0, 5).Draw(t, "records") {
			kind, q := rapid.SampledFrom([]string{"A", "A", "R", "U", "U", "P", "u", "C", "N"}).Draw(t, "kind"), rapid.IntRange(1, 3).Draw(t, "quantity")
			records = append(records, fmt.Sprintf("%s %d", kind, q))
			has := 0
			switch kind {
			case "A":
				has = q
				accepted += q
			case "U", "P", "u":
				if rapid.Bool().Draw(t, "billed") {
					has = q
				}
				if kind == "U" {
					unknown++
					billed = has > 0
				} else {
					perhaps += q
				}
			case "C":
				has = rapid.IntRange(1, 3).Draw(t, "of another meter")
			}
			if has > 0 {
				p.Records++
				if p.Complete || rapid.Bool().Draw(t, "processed") {
					sum += has
				}
			}
		}
		p.Quantity = float64(sum)
		if p.Records == 0 {
			p = Processed{}
		}
		visible := rapid.Bool().Draw(t, "visible")
		complete := p.Complete || p.Records == 0 && visible
		mature := rapid.Bool().Draw(t, "mature")
		wrong := false
		got := tallied(strings.Join(records, ", ")).Compare(p, visible, mature)
		switch got {
		case WasBilled:
			wrong = unknown != 1 || !billed || !complete
		case WasNotBilled:
			wrong = unknown != 1 || billed || !complete || !mature
		case More:
			wrong = sum <= accepted+perhaps && perhaps > 0 || sum <= accepted
		case Less:
			wrong = sum >= accepted || !mature
		case Equal:
			wrong = sum != accepted
		}
		if wrong {
			t.Fatalf("%v, processed %+v, visible %t, mature %t: %s", records, p, visible, mature, got)
		}
	})
}

func TestDay_MaturesAndExpires(t *testing.T) {
	d := Day{"org1", "AZURE", "ent1", at("06-15 00:00")}
	for _, test := range []struct {
		now                        string
		mature, expired, abandoned bool
	}{
		{"06-15 12:00", false, false, false},
		{"06-17 23:59", false, false, false},
		{"06-18 00:00", true, false, false},
		{"07-14 23:59", true, false, false},
		{"07-15 00:00", true, true, false},
		{"07-17 23:59", true, true, false},
		{"07-18 00:00", true, true, true},
	} {
		mature, expired, abandoned := d.Mature(at(test.now)), d.Expired(at(test.now)), d.Abandoned(at(test.now))
		if mature != test.mature || expired != test.expired || abandoned != test.abandoned {
			t.Errorf("%s: mature %t, expired %t, abandoned %t", test.now, mature, expired, abandoned)
		}
	}
	places := d.Places()
	if len(places) != 24 || places[0] != (Place{"org1", "ent1", at("06-15 00:00")}) || places[23] != (Place{"org1", "ent1", at("06-15 23:00")}) {
		t.Error(places)
	}
}

func TestResolve_NamesTheReconciliation(t *testing.T) {
	h, ledger := sealedHour(t)
	h.record("a").Attempts = history("?")
	h, ledger, err := h.Decide(ledger, &window, windowEnd)
	if err != nil {
		t.Fatal(err)
	}
	for by, reason := range map[string]string{
		ByReconciliation: "the marketplace's sum of the day shows that it was not billed", "ann": "an operator found that it was not billed",
	} {
		resolved, _, err := h.Resolve(ledger, "a", false, by, at("07-02 08:00"))
		if err != nil {
			t.Fatal(err)
		}
		if o := resolved.record("a").Outcome; o.By != by || o.Reason != reason || o.Kind != Rejected || o.Evidence != EvidenceResolved {
			t.Errorf("%+v", o)
		}
	}
}
