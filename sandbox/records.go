package sandbox

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // Google's months end in US Pacific time, on every machine
)

// A Marketplace is one of the three marketplaces.
type Marketplace string

// The marketplaces, as in paths.
const (
	AWS    Marketplace = "aws"
	Azure  Marketplace = "azure"
	Google Marketplace = "gcp"
)

// A Record is usage that a marketplace has accepted and bills.
type Record struct {
	Marketplace Marketplace `json:"marketplace"`
	// Identity is the string that no second record may share.
	Identity  string `json:"identity"`
	ID        string `json:"id"` // the marketplace's own: MeteringRecordId, usageEventId; Google has none: operationId
	Request   uint64 `json:"request"`
	Buyer     string `json:"buyer"`
	Product   string `json:"product"`
	Plan      string `json:"plan,omitempty"` // Azure
	Resource  string `json:"resource"`       // customer identifier, licence, subscription or consumer, as it was sent
	Region    string `json:"region,omitempty"`
	Dimension string `json:"dimension"`
	// Time is the timestamp of the usage: on Google the end of the operation.
	Time     time.Time `json:"time"`
	Accepted time.Time `json:"accepted"`
	Late     bool      `json:"late,omitempty"` // Google: more than an hour after its end
	Quantity string    `json:"quantity"`
	// Allocations is AWS's: a digest of the set of allocations, empty if there were none.
	Allocations string `json:"allocations,omitempty"`
	Price       string `json:"price"` // at the time of acceptance
	Currency    string `json:"currency"`
}

// identityOf joins the parts so that different parts give different strings.
func identityOf(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, part := range parts {
		escaped[i] = identityEscaper.Replace(part)
	}
	return strings.Join(escaped, "|")
}

var identityEscaper = strings.NewReplacer(`\`, `\\`, `|`, `\|`)

var pacific = func() *time.Location {
	l, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		panic(err) // it is compiled in
	}
	return l
}()

// month returns the month in which the record is billed.
func (r *Record) month() string {
	if r.Marketplace == Google {
		// An operation that ends at the end of a month belongs to that month.
		return r.Time.Add(-1).In(pacific).Format("2006-01")
	}
	return r.Time.UTC().Format("2006-01")
}

// A Bill has the amounts that the buyers pay for the accepted usage.
type Bill struct {
	Lines  []BillLine  `json:"lines"`
	Totals []BillTotal `json:"totals"`
}

// A BillLine is the usage of a buyer, product, dimension and month, at one price.
type BillLine struct {
	Marketplace Marketplace `json:"marketplace"`
	Buyer       string      `json:"buyer"`
	Product     string      `json:"product"`
	Plan        string      `json:"plan,omitempty"`
	Dimension   string      `json:"dimension"`
	Month       string      `json:"month"`
	Records     int         `json:"records"`
	Quantity    string      `json:"quantity"`
	Price       string      `json:"price"`
	Amount      string      `json:"amount"`
	Currency    string      `json:"currency"`
}

// A BillTotal is the amount that a buyer pays a marketplace for a month, in a currency.
type BillTotal struct {
	Marketplace Marketplace `json:"marketplace"`
	Buyer       string      `json:"buyer"`
	Month       string      `json:"month"`
	Amount      string      `json:"amount"`
	Currency    string      `json:"currency"`
}

// billOf sums all records, or those of a month such as 2026-11. Sums are exact.
func billOf(records []Record, month string) Bill {
	sums := map[BillLine]*big.Rat{}
	counts := map[BillLine]int{}
	for i := range records {
		r := &records[i]
		line := BillLine{
			Marketplace: r.Marketplace, Buyer: r.Buyer, Product: r.Product, Plan: r.Plan,
			Dimension: r.Dimension, Month: r.month(), Price: r.Price, Currency: r.Currency,
		}
		if month != "" && line.Month != month {
			continue
		}
		if sums[line] == nil {
			sums[line] = new(big.Rat)
		}
		sums[line].Add(sums[line], mustDecimal(r.Quantity))
		counts[line]++
	}
	bill := Bill{Lines: []BillLine{}, Totals: []BillTotal{}}
	totals := map[BillTotal]*big.Rat{}
	for line, sum := range sums {
		amount := new(big.Rat).Mul(sum, mustDecimal(line.Price))
		total := BillTotal{line.Marketplace, line.Buyer, line.Month, "", line.Currency}
		if totals[total] == nil {
			totals[total] = new(big.Rat)
		}
		totals[total].Add(totals[total], amount)
		line.Records, line.Quantity, line.Amount = counts[line], formatDecimal(sum), formatDecimal(amount)
		bill.Lines = append(bill.Lines, line)
	}
	for total, amount := range totals {
		total.Amount = formatDecimal(amount)
		bill.Totals = append(bill.Totals, total)
	}
	slices.SortFunc(bill.Lines, func(a, b BillLine) int {
		return cmp.Or(cmp.Compare(a.Marketplace, b.Marketplace), cmp.Compare(a.Buyer, b.Buyer), cmp.Compare(a.Product, b.Product),
			cmp.Compare(a.Plan, b.Plan), cmp.Compare(a.Dimension, b.Dimension), cmp.Compare(a.Month, b.Month),
			cmp.Compare(a.Price, b.Price), cmp.Compare(a.Currency, b.Currency))
	})
	slices.SortFunc(bill.Totals, func(a, b BillTotal) int {
		return cmp.Or(cmp.Compare(a.Marketplace, b.Marketplace), cmp.Compare(a.Buyer, b.Buyer),
			cmp.Compare(a.Month, b.Month), cmp.Compare(a.Currency, b.Currency))
	})
	return bill
}
