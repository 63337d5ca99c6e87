package transfer

import (
	"bytes"
	"cmp"
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

// SampleOptions configure LoadSample.
type SampleOptions struct {
	Now        time.Time
	SandboxURL string // endpoint of the connections; if it is empty, there are no connections
	Say        func(string)
}

// LoadSample loads the sample data: the catalog, 45 days of usage, and the usage of the last hours,
// which is reported as a client's is. It adds what is missing and changes nothing that exists, so
// it completes a load that was interrupted, and data of earlier versions. The usage of the last
// hours is added once a day.
func LoadSample(ctx context.Context, tbl *table.Table, o SampleOptions) error {
	for _, load := range []func(context.Context, *table.Table, *SampleOptions) error{loadTerms, loadConnections, loadHistory, reportSample} {
		if err := load(ctx, tbl, &o); err != nil {
			return fmt.Errorf("loading the sample data: %w", err)
		}
	}
	return nil
}

// loadTerms imports the entitlements and metrics, and stores the config if the organization has had
// none. What excludes an object of the sample is the user's own, and stays.
func loadTerms(ctx context.Context, tbl *table.Table, o *SampleOptions) error {
	created := o.Now.UTC().Truncate(24*time.Hour).AddDate(0, 0, -sampleDays)
	for _, of := range []struct {
		kind  Kind
		lines []byte
	}{{Entitlements, sample().entitlementLines(created)}, {Metrics, sample().metricLines(created)}} {
		_, err := Import(ctx, tbl, SampleOrg, bytes.NewReader(of.lines), ImportOptions{Kind: of.kind, Refused: func(_ int, reason error) {
			o.Say(fmt.Sprintf("One of the sample %s is left out: %v", of.kind, reason))
		}})
		if err != nil {
			return err
		}
	}
	current, err := tbl.Config(ctx, SampleOrg)
	if err != nil || current.Version > 0 {
		return err
	}
	patch, err := wire.DecodeConfigPatch(sample().Config)
	if err != nil {
		return err
	}
	first := metering.Conditions{IfNoneMatch: &metering.Tags{Any: true}}
	_, _, err = tbl.ChangeConfig(ctx, SampleOrg, o.Now, metering.ConfigChange{Conditions: first, Patch: patch, Replace: true, KeyID: "sample"})
	if metering.CodeOf(err) == metering.PreconditionFailed {
		return nil // the user was faster
	}
	return err
}

// loadConnections stores the connections that do not exist. In one to a sandbox at another address
// it changes the address.
func loadConnections(ctx context.Context, tbl *table.Table, o *SampleOptions) error {
	if o.SandboxURL == "" {
		return nil
	}
	rules := metering.ConnectionRules{Organization: SampleOrg, SandboxURL: o.SandboxURL}
	for _, c := range sample().Connections {
		stored, err := tbl.Connection(ctx, SampleOrg, c.Partner)
		connection := stored.Value
		switch {
		case metering.CodeOf(err) == metering.NotFound:
			connection = metering.Connection{Partner: c.Partner, TenantID: c.TenantID, ClientID: c.ClientID}
		case err != nil:
			return err
		case connection.Endpoint == "" || connection.Endpoint == o.SandboxURL:
			continue
		}
		connection.Endpoint = o.SandboxURL
		change, err := metering.NewConnectionChange(c.Partner, &connection, rules, metering.Conditions{})
		if err != nil {
			return err
		}
		if _, _, err := tbl.PutConnection(ctx, SampleOrg, &change); err != nil {
			return err
		}
	}
	return nil
}

// loadHistory imports the groups, which end at the beginning of today.
func loadHistory(ctx context.Context, tbl *table.Table, o *SampleOptions) error {
	have, err := tbl.CountGroups(ctx, SampleOrg)
	if err != nil {
		return err
	}
	if have >= sampleCount {
		o.Say(fmt.Sprintf("The sample data exists: organization %s, %d groups", SampleOrg, sampleCount))
		return nil
	}
	o.Say(fmt.Sprintf("Loading the sample data: organization %s, %d groups", SampleOrg, sampleCount))
	var refused error
	_, err = Import(ctx, tbl, SampleOrg, bytes.NewReader(sampleLines(o.Now)), ImportOptions{
		Refused: func(line int, reason error) { refused = fmt.Errorf("line %d: %w", line, reason) },
		Progress: func(c Counts) {
			if n := c.Lines(); n%500 == 0 && n < sampleCount {
				o.Say(fmt.Sprintf("  %d of %d", n, sampleCount))
			}
		},
	})
	return cmp.Or(err, refused)
}

// sampleReportID is the id of the i-th report of the day.
func sampleReportID(now time.Time, i int) metering.GroupID {
	return metering.GroupID(fmt.Sprintf("urg-%s-%02d", now.UTC().Format("20060102"), i+1))
}

// reportSample reports the usage of the last hours, unless it was reported earlier on this day.
// Usage of an entitlement that the user has deleted is left out.
func reportSample(ctx context.Context, tbl *table.Table, o *SampleOptions) error {
	reported := 0
	for i, r := range sample().Reports {
		id := sampleReportID(o.Now, i)
		_, err := tbl.Group(ctx, SampleOrg, id)
		if err == nil {
			continue
		}
		if metering.CodeOf(err) != metering.NotFound {
			return err
		}
		group, err := wire.DecodeNewGroup(r.Group)
		if err != nil {
			return fmt.Errorf("sample.json, report %d: %w", i, err)
		}
		happened := o.Now.UTC().Truncate(time.Minute).Add(-time.Duration(r.Ago))
		group.ID, group.Timestamp = string(id), &happened
		_, err = tbl.Report(ctx, SampleOrg, &metering.Report{Groups: []metering.NewGroup{group}, Now: o.Now})
		switch metering.CodeOf(err) {
		case metering.NotFound, metering.Conflict: // deleted, or another program has just reported it
		default:
			if err != nil {
				return err
			}
			reported++
		}
	}
	if reported > 0 {
		o.Say(fmt.Sprintf("Reported usage of the last hours: %d groups, urg-%s-01 and so on", reported, o.Now.UTC().Format("20060102")))
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

// sampleMeters set the records of a group, by its product. Each has one way of metering.
var sampleMeters = map[string]func(r *rand.Rand, g *metering.Group){
	// Two dimensions reported as they are, whole numbers and decimals.
	"prod-observe": func(r *rand.Rand, g *metering.Group) {
		g.Records = map[string]metering.Quantity{"hosts": sampleQuantity(int64(1+r.IntN(80)), 0), "logs_gb": sampleQuantity(r.Int64N(90_000), 2)}
		g.MetaInfo.OriginRecords = g.Records
	},
	// Calls, converted to thousands of requests.
	"prod-gateway": func(r *rand.Rand, g *metering.Group) {
		calls := 1 + r.Int64N(4_000_000)
		g.MetaInfo.OriginRecords = map[string]metering.Quantity{"api_calls": sampleQuantity(calls, 0)}
		g.Records = map[string]metering.Quantity{"requests": sampleQuantity(calls, 3)}
	},
	// A billable metric with properties (usage metering v2), whose quantities add up to a
	// dimension.
	"prod-inference": func(r *rand.Rand, g *metering.Group) {
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
	},
}

// sampleGroups yields the groups in order of creation.
func sampleGroups(today time.Time) iter.Seq[metering.Group] {
	end := today.UTC().Truncate(24 * time.Hour)
	return func(yield func(metering.Group) bool) {
		r := rand.New(rand.NewPCG(2024, 7))
		months := map[string]*sampleMonth{}
		var entitlements []sampleEntitlement
		for _, e := range sample().Entitlements {
			if e.History {
				entitlements = append(entitlements, e)
			}
		}
		for n := 1; n <= sampleCount; n++ {
			const slot = sampleDays * 24 * time.Hour / sampleCount
			created := end.Add(-slot * time.Duration(sampleCount-n))
			if n < sampleCount {
				created = created.Add(-randomDuration(r, slot/2)).Truncate(time.Millisecond)
			}
			used := created.Truncate(time.Minute)
			e := &entitlements[r.IntN(len(entitlements))]
			g := metering.Group{
				ID: fmt.Sprintf("urg-%04d", n), SerialID: int32(n), OrganizationID: SampleOrg,
				Partner: e.Partner, BuyerID: e.BuyerID, EntitlementID: string(e.ID), ProductID: e.ProductID,
				CreationTime: created, MetaInfo: metering.MetaInfo{Source: &e.Source, Timestamp: &used},
			}
			sampleMeters[e.ProductID](r, &g)
			month, ok := months[g.EntitlementID]
			if !ok || month.start.Month() != created.Month() {
				month = &sampleMonth{start: time.Date(created.Year(), created.Month(), 1, 0, 0, 0, 0, time.UTC)}
				months[g.EntitlementID] = month
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
