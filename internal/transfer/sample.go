package transfer

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// SampleOrg is the organization of the sample data.
const SampleOrg = "demo"

// The sample data is that of an organization after sampleDays. It sells three products on three
// marketplaces, to buyers with every kind of integration.
const (
	sampleCount = 2500 // groups, urg-0001 to urg-2500; the last is the newest, and CREATED
	sampleDays  = 44   // days of the groups, up to the beginning of today
)

// LoadSample loads the sample data of the day, unless it exists. It completes a load that was
// interrupted, on any day.
func LoadSample(ctx context.Context, tbl *table.Table, today time.Time, say func(string)) error {
	have, err := tbl.CountGroups(ctx, SampleOrg)
	if err != nil {
		return fmt.Errorf("looking for the sample data: %w", err)
	}
	if have >= sampleCount {
		say(fmt.Sprintf("The sample data exists: organization %s, %d groups", SampleOrg, have))
		return nil
	}
	say(fmt.Sprintf("Loading the sample data: organization %s, %d groups", SampleOrg, sampleCount))
	var refused error
	_, err = Import(ctx, tbl, SampleOrg, bytes.NewReader(sampleLines(today)), ImportOptions{
		Refused: func(line int, reason error) { refused = fmt.Errorf("line %d: %w", line, reason) },
		Progress: func(c Counts) {
			if n := c.Lines(); n%500 == 0 && n < sampleCount {
				say(fmt.Sprintf("  %d of %d", n, sampleCount))
			}
		},
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return fmt.Errorf("loading the sample data: %w", err)
	}
	return nil
}

// sampleLines returns the sample data as JSON lines, 2 MB; the same throughout a UTC day.
func sampleLines(today time.Time) []byte {
	var lines []byte
	for group := range sampleGroups(today) {
		lines = append(wire.AppendGroupForExport(lines, &group), '\n')
	}
	return lines
}

// sampleProduct is a product and its metering.
type sampleProduct struct {
	id    string
	meter func(r *rand.Rand, g *metering.Group) // sets the group's records
}

var (
	// Two dimensions reported as they are, whole numbers and decimals.
	observe = sampleProduct{"prod-observe", func(r *rand.Rand, g *metering.Group) {
		g.Records = map[string]metering.Quantity{"hosts": sampleQuantity(int64(1+r.IntN(80)), 0), "logs_gb": sampleQuantity(r.Int64N(90_000), 2)}
		g.MetaInfo.OriginRecords = g.Records
	}}
	// Calls, converted to thousands of requests.
	gateway = sampleProduct{"prod-gateway", func(r *rand.Rand, g *metering.Group) {
		calls := 1 + r.Int64N(4_000_000)
		g.MetaInfo.OriginRecords = map[string]metering.Quantity{"api_calls": sampleQuantity(calls, 0)}
		g.Records = map[string]metering.Quantity{"requests": sampleQuantity(calls, 3)}
	}}
	// A billable metric with properties (usage metering v2), whose quantities add up to a
	// dimension.
	inference = sampleProduct{"prod-inference", func(r *rand.Rand, g *metering.Group) {
		total := int64(0)
		for _, model := range []string{"small", "large"}[r.IntN(2):] {
			tokens := 1 + r.Int64N(2_000_000)
			total += tokens
			g.MetaInfo.BillableRecords = append(g.MetaInfo.BillableRecords, metering.BillableRecord{
				Key:        "bm-tokens",
				Properties: map[string]any{"model": model, "region": []string{"us-east-1", "eu-central-1"}[r.IntN(2)]},
				Quantity:   sampleQuantity(tokens, 3),
			})
		}
		g.Records = map[string]metering.Quantity{"tokens_k": sampleQuantity(total, 3)}
		g.MetaInfo.OriginRecords = g.Records
	}}
)

// sampleEntitlements lists buyer, product and marketplace, and the source that reports the usage.
var sampleEntitlements = []struct {
	partner   metering.Partner
	buyer, id string
	product   sampleProduct
	source    metering.Source
}{
	{"AWS", "482913370651", "ent-8f3a61c2", observe, "API"},
	{"AWS", "482913370651", "ent-0b7d94e5", inference, "API"},
	{"AWS", "730546182997", "ent-c41e27aa", gateway, "METRONOME"},
	{"AWS", "730546182997", "ent-6d90b3f8", inference, "METRONOME"},
	{"AWS", "615208834470", "ent-2ea85c17", observe, "LAGO"},
	{"AWS", "octank-financial", "ent-97f1d06b", gateway, "API"},
	{"AWS", "octank-financial", "ent-b5c3480e", inference, "STRIPE"},
	{"AWS", "anycompany-media", "ent-3a72e9d4", observe, ""},
	{"AZURE", "contoso-retail", "ent-f08b15c6", observe, "API"},
	{"AZURE", "contoso-retail", "ent-41d6a2e3", gateway, "ORB"},
	{"AZURE", "fabrikam-logistics", "ent-d9e47b50", inference, "API"},
	{"AZURE", "fabrikam-logistics", "ent-7c02f6a8", observe, "STRIPE"},
	{"AZURE", "northwind-traders", "ent-1f5e83b9", gateway, "LAGO"},
	{"AZURE", "tailspin-toys", "ent-a64c0d72", inference, "INTERNAL"},
	{"AZURE", "tailspin-toys", "ent-5b8f29e1", observe, "API"},
	{"GCP", "cymbal-bank", "ent-e273c4d0", gateway, "API"},
	{"GCP", "cymbal-bank", "ent-08a9f51d", inference, "ORB"},
	{"GCP", "altostrat-games", "ent-bd346e97", observe, "METRONOME"},
	{"GCP", "altostrat-games", "ent-6217ca8f", inference, "API"},
	{"GCP", "examplepetstore", "ent-94d0be36", gateway, "INTERNAL"},
}

// sampleGroups yields the groups in order of creation.
func sampleGroups(today time.Time) iter.Seq[metering.Group] {
	end := today.UTC().Truncate(24 * time.Hour)
	return func(yield func(metering.Group) bool) {
		r := rand.New(rand.NewPCG(2024, 7))
		months := map[string]*sampleMonth{}
		for n := 1; n <= sampleCount; n++ {
			const slot = sampleDays * 24 * time.Hour / sampleCount
			created := end.Add(-slot * time.Duration(sampleCount-n))
			if n < sampleCount {
				created = created.Add(-randomDuration(r, slot/2)).Truncate(time.Millisecond)
			}
			used := created.Truncate(time.Minute)
			e := sampleEntitlements[r.IntN(len(sampleEntitlements))]
			g := metering.Group{
				ID: fmt.Sprintf("urg-%04d", n), SerialID: int32(n), OrganizationID: SampleOrg,
				Partner: e.partner, BuyerID: e.buyer, EntitlementID: e.id, ProductID: e.product.id,
				CreationTime: created, MetaInfo: metering.MetaInfo{Source: &e.source, Timestamp: &used},
			}
			e.product.meter(r, &g)
			month, ok := months[e.id]
			if !ok || month.start.Month() != created.Month() {
				month = &sampleMonth{start: time.Date(created.Year(), created.Month(), 1, 0, 0, 0, 0, time.UTC)}
				months[e.id] = month
			}
			month.carry(r, &g)
			proceed(r, &g, end)
			if !yield(g) {
				return
			}
		}
	}
}

func randomDuration(r *rand.Rand, below time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(below)))
}

// sampleMonth is what an entitlement's integration has counted in a month so far.
type sampleMonth struct {
	start time.Time
	cents int64
	usage int64
}

// carry adds the members that the reporting integration adds to a group. Their amounts grow through
// the month.
func (m *sampleMonth) carry(r *rand.Rand, g *metering.Group) {
	cost := 100 + r.Int64N(40_000)
	m.cents += cost
	m.usage += 1 + r.Int64N(500)
	month, reference := m.start.Format("2006-01"), g.EntitlementID[len("ent-"):]
	switch *g.MetaInfo.Source {
	case "INTERNAL":
		skip := true
		g.MetaInfo.SkipValidation = &skip
	case "LAGO":
		g.MetaInfo.Carried = map[string]any{
			"lagoAmount":         sampleAmount(m.cents),
			"lagoSubscriptionID": "sub_" + reference,
			"lagoUsageStartTime": metering.FormatTime(m.start),
		}
	case "METRONOME":
		g.MetaInfo.Carried = map[string]any{
			"metronomeDailyCostAmount":      sampleAmount(cost),
			"metronomeInvoiceID":            "inv-" + reference + "-" + month,
			"metronomeMonthlyInvoiceAmount": sampleAmount(m.cents),
		}
		if r.IntN(10) == 0 { // the seller granted a credit
			g.MetaInfo.Carried["metronomeMonthlyInvoiceAmountAdjusted"] = sampleAmount(m.cents - cost/2)
		}
	case "STRIPE":
		g.MetaInfo.Carried = map[string]any{
			"stripeInvoiceID":                    "in_" + reference + "_" + month,
			"stripePeriodEndTime":                metering.FormatTime(m.start.AddDate(0, 1, 0)),
			"stripePeriodStartTime":              metering.FormatTime(m.start),
			"stripeSubscriptionItemID":           "si_" + reference,
			"stripeUsageRecordSummaryID":         "sis_" + reference + "_" + month,
			"stripeUsageRecordSummaryTotalUsage": metering.NumberOf(m.usage),
		}
	}
}

// proceed sets the status that the group is likely to have reached by end.
func proceed(r *rand.Rand, g *metering.Group, end time.Time) {
	age := end.Sub(g.CreationTime)
	next := g.CreationTime.Add(randomDuration(r, 45*time.Minute)).Truncate(time.Millisecond)
	chance := r.IntN(100)
	switch {
	case age < time.Hour: // too soon for a change of status
		g.Status, next = metering.StatusCreated, g.CreationTime
	case chance < 5:
		g.Status = metering.StatusDeleted
	case chance < 10:
		g.Status = metering.StatusInvalid
	case chance < 15:
		g.Status = metering.StatusReportFailed
	case age < 72*time.Hour && chance < 60:
		g.Status, next = metering.StatusCreated, g.CreationTime
	case age < 72*time.Hour && chance < 85:
		g.Status = metering.StatusReportPending
	default:
		g.Status = metering.StatusReported
		g.UsageRecordReportID = "urr-" + g.ID[len("urg-"):]
		g.ReportedTime = next
	}
	g.LastUpdateTime = next
}

// sampleQuantity is n / 10^decimals.
func sampleQuantity(n int64, decimals int) metering.Quantity {
	q, err := metering.ParseQuantity(strconv.FormatInt(n, 10) + "e-" + strconv.Itoa(decimals))
	if err != nil {
		panic(err) // no sample is out of range
	}
	return q
}

// sampleAmount is an amount in dollars.
func sampleAmount(cents int64) metering.Number {
	n, err := metering.ParseNumber(strconv.FormatInt(cents, 10) + "e-2")
	if err != nil {
		panic(err) // no sample is out of range
	}
	return n
}
