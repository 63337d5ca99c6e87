package reports

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// configOf is a config in which the flags of the partner's entry are true.
func configOf(partner metering.Partner, flags ...string) metering.ConfigVersion {
	entry := map[string]any{"partner": string(partner)}
	for _, flag := range flags {
		entry[flag] = true
	}
	return metering.ConfigVersion{Version: 7, Config: metering.Config{"partnerUsageMeteringConfigs": []any{entry}}}
}

const (
	beyondCommit = "enableCommitWithAdditionalUsageMetering"
	atListPrice  = "enableCommitWithAdditionalUsageAtListPrice"
)

func quantityOf(text string) metering.Quantity {
	q, err := metering.ParseQuantity(text)
	if err != nil {
		panic(err)
	}
	return q
}

// quantities reads "a 1.5, b 2".
func quantities(text string) map[string]metering.Quantity {
	all := map[string]metering.Quantity{}
	for _, pair := range strings.Split(text, ", ") {
		if key, value, ok := strings.Cut(pair, " "); ok {
			all[key] = quantityOf(value)
		}
	}
	return all
}

func exacts(text string) map[string]metering.Exact {
	all := map[string]metering.Exact{}
	for _, pair := range strings.Split(text, ", ") {
		if key, value, ok := strings.Cut(pair, " "); ok {
			all[key] = metering.MustExact(value)
		}
	}
	return all
}

// entitlementOf reads prices such as "a 2 3": a dimension with its unit price and its list price.
func entitlementOf(partner metering.Partner, commit, prices string) *metering.Entitlement {
	e := &metering.Entitlement{ID: "ent1", OrganizationID: "org1", Partner: partner}
	e.Info.CommitAmount = quantityOf(commit)
	for _, text := range strings.Split(prices, ", ") {
		if fields := strings.Fields(text); len(fields) == 3 {
			e.Info.Dimensions = append(e.Info.Dimensions, metering.Dimension{Key: fields[0], Rate: quantityOf(fields[1]), ListPrice: quantityOf(fields[2])})
		}
	}
	return e
}

func sealed(t testing.TB, e *metering.Entitlement, flags []string, totals map[string]metering.Exact, ledger Ledger) (Hour, Ledger) {
	t.Helper()
	terms := &metering.Terms{Entitlement: e, Config: configOf(e.Partner, flags...)}
	s := ScheduleOf(e, metering.Connection{})
	h, after, err := OpenHour("org1", "ent1", at("06-15 10:00")).Seal(terms, &s, metering.HourUsage{Totals: totals}, ledger)
	if err != nil {
		t.Fatal(err)
	}
	return h, after
}

// summary is "a 3 in .. out .. drawn ..": members that are 0 are left out.
func summary(h *Hour) string {
	var all []string
	for _, r := range h.Sealed.Records {
		text := r.Dimension + " " + r.Quantity.String()
		for _, part := range []struct {
			name  string
			value metering.Exact
		}{{"in", r.CarryIn}, {"out", r.CarryOut}, {"drawn", r.Drawn}, {"amount", r.DrawnAmount}} {
			if part.value.Sign() != 0 {
				text += " " + part.name + " " + part.value.String()
			}
		}
		if r.Outcome.Kind != Undecided {
			text += " " + string(r.Outcome.Kind) + " " + string(r.Outcome.Code)
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

func ledgerText(l Ledger) string {
	text := l.Used.String()
	for _, key := range slices.Sorted(maps.Keys(l.Carry)) {
		text += " " + key + " " + l.Carry[key].String()
	}
	return text
}

// One unit or more is left only of what the marketplace does not take in a record.
func TestSeal_CarriesUnits(t *testing.T) {
	for _, test := range []struct {
		partner metering.Partner
		usage   string
		carries bool
	}{
		{"AWS", "9999999999.9999999", false},
		{"AWS", "10000000000.999998", false},
		{"AWS", "10000000000.999999", true},
		{"AWS", "12000000000", true},
		{"AWS", "0.9999999", false},
		{"AZURE", "123456789012345.9", false},
		{"AZURE", "0.1234567890123459", false},
		{"AZURE", "18000000000000000000", true},
		{"GCP", "1.999999999", false},
		{"GCP", "9223372036854775807.999", false},
		{"GCP", "9223372036854775808", true},
	} {
		h, _ := sealed(t, entitlementOf(test.partner, "0", ""), nil, exacts("a "+test.usage), Ledger{})
		if r := h.Record("a"); r.CarriesUnits() != test.carries {
			t.Errorf("%s, %s: %s is carried, and it says %t", test.partner, test.usage, r.CarryOut, r.CarriesUnits())
		}
	}
}

func TestSeal_EachTerm(t *testing.T) {
	beyond, list := []string{beyondCommit}, []string{beyondCommit, atListPrice}
	for _, test := range []struct {
		name           string
		partner        metering.Partner
		flags          []string
		commit, prices string
		usage          string
		carry, used    string
		want, ledger   string
	}{
		{"no usage", "AWS", nil, "0", "", "", "a 0.5", "0", "", "0 a 0.5"},
		{"exact", "AWS", nil, "0", "", "a 1.5, b 2", "", "0", "a 1.5; b 2", "0"},
		{"carry", "GCP", nil, "0", "", "a 1.5, b 2.25", "a 0.75, c 0.1", "0", "a 2 in 0.75 out 0.25; b 2 out 0.25", "0 c 0.1"},
		{"carry only", "GCP", nil, "0", "", "a 0.5", "", "0", "a 0 out 0.5", "0"},
		{"zero usage", "GCP", nil, "0", "", "a 0", "a 0.5", "0", "a 0 in 0.5 out 0.5", "0"},
		{"more than AWS takes", "AWS", nil, "0", "", "a 10000000000.1234567", "", "0", "a 9999999999.999999 out 0.1234577", "0"},
		{"more than INT64", "GCP", nil, "0", "", "a 9223372036854775809.5", "", "0", "a 9223372036854775807 out 2.5", "0"},
		{"more than 15 digits", "AZURE", nil, "0", "", "a 1234567890.1234567", "", "0", "a 1234567890.12345 out 0.0000067", "0"},

		{"commit without the flag", "AWS", nil, "100", "a 2 0", "a 10", "", "0", "a 10", "0"},
		{"commit covers all", "AWS", beyond, "100", "a 2 0", "a 10", "", "50", "a 0 drawn 10 amount 20", "70"},
		{"commit covers all exactly", "AWS", beyond, "100", "a 2 0", "a 25", "", "50", "a 0 drawn 25 amount 50", "100"},
		{"crosses the commit", "AWS", beyond, "100", "a 2 0", "a 30", "", "50", "a 5 drawn 25 amount 50", "100"},
		{"commit is used up: no price is needed", "AWS", beyond, "100", "", "a 30", "", "100", "a 30", "100"},
		{"commit was lowered", "AWS", beyond, "40", "a 2 0", "a 30", "", "50", "a 30", "50"},
		{"no commit", "AWS", beyond, "0", "", "a 30", "", "0", "a 30", "0"},
		{"no commit, list price", "AWS", list, "0", "a 2 3", "a 30", "", "0", "a 30", "0"},
		{"units that exhaust it are rounded up", "AWS", beyond, "1", "a 3 0", "a 1", "", "0", "a 0.666666 out 0.000000666 drawn 0.333333334 amount 1", "1"},
		{"rounded up, but never more than was used", "AWS", beyond, "0.00000000025", "a 1 0", "a 0.0000000003", "", "0", "a 0 drawn 0.0000000003 amount 0.00000000025", "0.00000000025"},
		{"in byte order", "AWS", beyond, "30", "a 1 0, B 1 0, b 1 0", "b 20, a 20, B 20", "", "0", "B 0 drawn 20 amount 20; a 10 drawn 10 amount 10; b 20", "30"},
		{"carry is not drawn", "GCP", beyond, "10", "a 1 0", "a 10", "a 0.5", "0", "a 0 in 0.5 out 0.5 drawn 10 amount 10", "10"},
		{"no price", "AWS", beyond, "30", "b 1 0", "a 20, b 5", "a 0.5", "0", "a 0 REJECTED NO_PRICE; b 0 drawn 5 amount 5", "5 a 0.5"},
		{"no price for nothing", "AWS", beyond, "30", "", "a 0", "", "0", "a 0", "0"},

		{"list price", "AWS", list, "30", "a 2 3", "a 25", "", "0", "a 15 drawn 15 amount 30", "30"},
		{"list price, commit is used up", "AWS", list, "30", "a 2 3", "a 25", "a 0.0000001", "30", "a 37.5 in 0.0000001 out 0.0000001", "30"},
		{"list price, not finite", "AWS", list, "30", "a 3 1", "a 25", "", "30", "a 8.333333 out 1/3000000", "30"},
		{"list price, carried fraction", "AWS", list, "30", "a 3 1", "a 25", "a 1/1500000", "30", "a 8.333334 in 1/1500000", "30"},
		{"list price is missing", "AWS", list, "30", "a 2 0", "a 25", "a 0.5", "10", "a 0 REJECTED NO_PRICE", "10 a 0.5"},
		{"list price is not needed", "AWS", list, "30", "a 2 0", "a 5", "", "10", "a 0 drawn 5 amount 10", "20"},
		{"list price, unit price is missing", "AWS", list, "30", "a 0 3", "a 25", "", "30", "a 0 REJECTED NO_PRICE", "30"},
	} {
		before := Ledger{Version: 4, Carry: exacts(test.carry), Used: metering.MustExact(test.used)}
		h, ledger := sealed(t, entitlementOf(test.partner, test.commit, test.prices), test.flags, exacts(test.usage), before)
		if got := summary(&h); got != test.want {
			t.Errorf("%s: sealed %s, want %s", test.name, got, test.want)
		}
		if got := ledgerText(ledger); got != test.ledger || ledger.Version != 5 {
			t.Errorf("%s: ledger %s (version %d), want %s", test.name, got, ledger.Version, test.ledger)
		}
		if ledgerText(before) != ledgerText(Ledger{Carry: exacts(test.carry), Used: metering.MustExact(test.used)}) {
			t.Errorf("%s: the ledger before has changed", test.name)
		}
	}
}

func TestSeal_KeepsWhatItIsMadeFrom(t *testing.T) {
	e := entitlementOf("AWS", "100", "a 2 3")
	e.Marketplace = metering.MarketplaceIDs{CustomerIdentifier: "c", ProductCode: "p", Region: "eu-west-1"}
	e.StartTime, e.CancelTime, e.LastUpdateTime = at("06-15 10:05"), at("06-15 10:50"), at("06-01 00:00")
	h, _ := sealed(t, e, []string{beyondCommit, atListPrice}, exacts("a 75"), Ledger{Used: metering.MustExact("50")})
	s := h.Sealed
	if s.Partner != "AWS" || s.Marketplace.Region != "eu-west-1" || s.Config != 7 || !s.Entitlement.Equal(e.LastUpdateTime) ||
		!s.From.Equal(e.StartTime) || !s.To.Equal(e.CancelTime) || s.CommitAmount.String() != "100" || s.UsedCommit.String() != "50" {
		t.Errorf("%+v", s)
	}
	if r := s.Records[0]; r.UnitPrice != quantityOf("2") || r.ListPrice != quantityOf("3") || r.Scale.String() != "1.5" || r.Excess().String() != "50" || r.Quantity != quantityOf("75") {
		t.Errorf("%+v", r)
	}
}

func TestSeal_RejectsAnHourAfterTheEntitlement(t *testing.T) {
	e := entitlementOf("AWS", "100", "a 2 3")
	e.CancelTime = at("06-15 09:59")
	h, ledger := sealed(t, e, []string{beyondCommit}, exacts("a 75"), Ledger{Carry: exacts("a 0.5")})
	if got := summary(&h); got != "a 0 REJECTED NO_HOUR_LEFT" || ledgerText(ledger) != "0 a 0.5" {
		t.Errorf("%s, ledger %s", got, ledgerText(ledger))
	}
	h, after, err := h.Decide(ledger, &window, inWindow)
	if err != nil || h.State != StateDecided || ledgerText(after) != "0 a 0.5" {
		t.Errorf("%s, ledger %s, %v", h.State, ledgerText(after), err)
	}
}

func TestSeal_StopsAtWhatItCantRead(t *testing.T) {
	e := entitlementOf("AWS", "100", "a 2 3")
	schedule := ScheduleOf(e, metering.Connection{})
	open := OpenHour("org1", "ent1", at("06-15 10:00"))
	totals := metering.HourUsage{Totals: exacts("a 1")}
	problem := totals
	problem.Problems = []metering.Problem{{Message: "a reason"}}
	strange := configOf("AWS")
	strange.Config["partnerUsageMeteringConfigs"].([]any)[0].(map[string]any)["poolCommits"] = true
	other := *e
	other.Partner = "ORACLE"
	for _, test := range []struct {
		name  string
		hour  Hour
		e     *metering.Entitlement
		c     metering.ConfigVersion
		usage metering.HourUsage
	}{
		{"problems", open, e, configOf("AWS"), problem},
		{"unknown member", open, e, strange, totals},
		{"unreadable config", open, e, metering.ConfigVersion{Err: errors.New("broken")}, totals},
		{"negative usage", open, e, configOf("AWS"), metering.HourUsage{Totals: exacts("a -1")}},
		{"unknown partner", open, &other, configOf("ORACLE"), totals},
		{"unknown state", Hour{State: "SHARDED"}, e, configOf("AWS"), totals},
	} {
		h, ledger, err := test.hour.Seal(&metering.Terms{Entitlement: test.e, Config: test.c}, &schedule, test.usage, Ledger{Version: 3})
		if err == nil || h.Sealed != nil || ledger.Version != 3 {
			t.Errorf("%s: %+v, %+v, %v", test.name, h, ledger, err)
		}
		if errors.Is(err, ErrState) != (test.hour.State != StateOpen) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// An hour that is sealed from its groups in another order is the same, byte for byte.
func TestConvertAndSeal_DoNotDependOnOrder(t *testing.T) {
	e := entitlementOf("AZURE", "50", "a 0.3 0.7, b 1.1 1.3")
	terms := &metering.Terms{Entitlement: e, Config: configOf("AZURE", beyondCommit, atListPrice)}
	schedule := ScheduleOf(e, metering.Connection{})
	var members []Member
	for i := range 50 {
		members = append(members, Member{Group: &metering.Group{
			ID: fmt.Sprint(i), CreationTime: at("06-15 10:00").Add(time.Duration(i) * time.Second),
			Records: map[string]metering.Quantity{"a": quantityOf(fmt.Sprintf("%d.%d", i, i)), "b": quantityOf("0.333333333")},
		}})
	}
	var first string
	for range 5 {
		rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		h, ledger, err := OpenHour("org1", "ent1", at("06-15 10:00")).Seal(terms, &schedule, convert(terms, members), Ledger{Carry: exacts("a 1/3")})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%+v %+v", *h.Sealed, ledger)
		if first == "" {
			first = got
		}
		if got != first {
			t.Fatalf("%s\n%s", got, first)
		}
	}
}

// added is what members come to that are added up in lists of two, as they are stored.
func added(terms *metering.Terms, members []Member) (map[string]metering.Exact, *Billable) {
	all, billable := SumOf(nil, nil), NewBillable()
	for list := range slices.Chunk(members, 2) {
		var claimed []*Member
		for i := range list {
			claimed = append(claimed, &list[i])
		}
		all.Add(SumOf(nil, claimed))
		of := NewBillable()
		of.Add(terms, list)
		billable.Join(of)
	}
	return all.Totals, billable
}

func convert(terms *metering.Terms, members []Member) metering.HourUsage {
	totals, billable := added(terms, members)
	return terms.ConvertHour(totals, billable.Aggregates)
}

func acceptedUsage(members []Member) metering.HourUsage {
	totals, billable := added(nil, members)
	return billable.AcceptedUsage(totals)
}

func TestConvert_TakesOnlyWhatFailed(t *testing.T) {
	terms := &metering.Terms{
		Entitlement: entitlementOf("AWS", "0", ""), Config: configOf("AWS"),
		Metrics: []metering.BillableMetric{{ID: "m", Name: "a", AggregationType: metering.AggregateSum}},
	}
	group := &metering.Group{
		Records:  quantities("a 5, b 7"),
		MetaInfo: metering.MetaInfo{BillableRecords: []metering.BillableRecord{{Key: "m", Quantity: quantityOf("5")}}},
	}
	usage := convert(terms, []Member{{Group: group}, {Group: group, Only: quantities("b 7")}})
	if len(usage.Problems) > 0 || len(usage.Totals) != 2 || usage.Totals["a"].String() != "5" || usage.Totals["b"].String() != "7" {
		t.Errorf("%+v", usage)
	}
	if len(group.MetaInfo.BillableRecords) != 1 || len(group.Records) != 2 {
		t.Error("the group has changed")
	}
}
