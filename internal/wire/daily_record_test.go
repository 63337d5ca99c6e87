package wire

import (
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

func daily(quantity, amount string) reports.Daily {
	d := reports.Daily{Quantity: exactly(quantity)}
	if amount != "" {
		x := exactly(amount)
		d.Amount = &x
	}
	return d
}

func TestAppendDailyRecord(t *testing.T) {
	long := strings.Repeat("9", 38)
	for _, test := range []struct{ quantity, amount, want string }{
		{"0.3", "", `"quantity":0.3`},
		{"0.3", "0.30000000000000000000000000000000000001", `{"amount":0.30000000000000000000000000000000000001,`},
		{"12345678901234567890.5", long, `{"amount":` + long + `,`},
		{"1", long + "9", `{"date"`},
		{"1", "0.0" + long, `{"amount":0.0` + long + `,`},
		{"1", "1/3", `{"date"`},
		{"1", "0", `{"amount":0,`},
	} {
		r := DailyRecord{Date: "2026-03-01", Entitlement: "e1", Partner: "AWS", Key: `c"pu`, Daily: daily(test.quantity, test.amount)}
		got := string(AppendDailyRecord(nil, &r))
		rest := `"date":"2026-03-01T00:00:00.000Z","entitlementID":"e1","key":"c\"pu","partner":"AWS","quantity":` + test.quantity + `}`
		if !strings.Contains(got, test.want) || !strings.HasSuffix(got, rest) {
			t.Errorf("%s is without %s or %s", got, test.want, rest)
		}
	}
}

func TestStoredDays_AreReadAsTheyWere(t *testing.T) {
	days := map[string]reports.Daily{"a": daily("0.1", "1/3"), `b"#`: daily("12345678901234567890.0000000001", ""), "c": daily("0", "0")}
	stored := string(AppendStoredDays(nil, days))
	if want := `{"a":{"amount":"1/3","quantity":"0.1"},"b\"#":{"quantity":"12345678901234567890.0000000001"},"c":{"amount":"0","quantity":"0"}}`; stored != want {
		t.Errorf("%s, want %s", stored, want)
	}
	got, err := DecodeStoredDays([]byte(stored))
	if err != nil || string(AppendStoredDays(nil, got)) != stored {
		t.Errorf("%v, %v", got, err)
	}
	for _, unreadable := range []string{``, `[]`, `{"a":{}}`, `{"a":{"quantity":1}}`, `{"a":{"quantity":"1e3"}}`, `{"a":{"newer":1,"quantity":"1"}}`, `{"a":{"amount":"x","quantity":"1"}}`} {
		if got, err := DecodeStoredDays([]byte(unreadable)); err == nil {
			t.Errorf("%s is %v", unreadable, got)
		}
	}
}
