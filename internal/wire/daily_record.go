package wire

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// AppendStoredDays appends what was accepted in a day, by dimension, as the table stores it:
// numbers are texts of Exact.
func AppendStoredDays(b []byte, days map[string]reports.Daily) []byte {
	b = append(b, '{')
	for _, dimension := range slices.Sorted(maps.Keys(days)) {
		d := days[dimension]
		b = append(appendName(b, dimension), '{')
		if d.Amount != nil {
			b = AppendText(appendName(b, "amount"), d.Amount.String())
		}
		b = append(AppendText(appendName(b, "quantity"), d.Quantity.String()), '}')
	}
	return append(b, '}')
}

// DecodeStoredDays reads what AppendStoredDays has appended. A member of a newer version is an
// error: it must not be lost when the sums are written again.
func DecodeStoredDays(text []byte) (map[string]reports.Daily, error) {
	d := &decoder{json: jsontext.NewDecoder(bytes.NewBuffer(text)), stored: true}
	return decodeBy(d, func(d *decoder) (map[string]reports.Daily, error) {
		days := map[string]reports.Daily{}
		err := d.object("dimensions, an object", func(dimension string) error {
			var day reports.Daily
			var given bool
			err := d.object("what was accepted, an object", func(name string) error {
				switch name {
				case "amount":
					amount, err := d.exact()
					day.Amount = &amount
					return err
				case "quantity":
					var err error
					day.Quantity, err = d.exact()
					given = true
					return err
				default:
					return d.unknown(name, []string{"amount", "quantity"})
				}
			})
			if err == nil && !given {
				err = d.errorf("has no quantity")
			}
			days[dimension] = day
			return err
		})
		return days, err
	})
}

// DailyRecord is what a marketplace has accepted of a dimension of an entitlement in a day.
type DailyRecord struct {
	Date        metering.Day
	Entitlement metering.EntitlementID
	Partner     metering.Partner
	Key         string // the dimension
	reports.Daily
}

// maxAmountDigits is how many digits an amount may have. A longer one is left out.
const maxAmountDigits = 38

// AppendDailyRecord appends the record as the API returns it. The date is the beginning of the day:
// the public API has a time there.
func AppendDailyRecord(b []byte, r *DailyRecord) []byte {
	b = append(b, '{')
	if r.Amount != nil {
		if amount := r.Amount.String(); isDecimal(amount) && digits(amount) <= maxAmountDigits {
			b = append(appendName(b, "amount"), amount...)
		}
	}
	b = append(append(appendName(b, "date"), '"'), r.Date...)
	b = append(b, `T00:00:00.000Z"`...)
	b = AppendText(appendName(b, "entitlementID"), string(r.Entitlement))
	b = AppendText(appendName(b, "key"), r.Key)
	b = AppendText(appendName(b, "partner"), string(r.Partner))
	return append(appendDecimal(appendName(b, "quantity"), r.Quantity), '}')
}

func isDecimal(number string) bool { return !strings.Contains(number, "/") }

// digits is how many digits a decimal has, without leading zeros.
func digits(decimal string) int {
	return len(strings.TrimLeft(strings.NewReplacer("-", "", ".", "").Replace(decimal), "0"))
}
