package metering

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var (
	jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
	rfc3339    = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$`)
	leapSecond = regexp.MustCompile(`^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d):60(?:\.\d+)?(\D.*)$`)
	longest    = regexp.MustCompile(`[eE][+-]?0*[0-9]{4}`) // an exponent that would take math/big very long
)

// FuzzScalars looks for a text that ParseNumber, ParseQuantity, ParseTime or ParseDay accepts but
// should not, refuses but should accept, or reads as another value than math/big, encoding/json and
// time do.
func FuzzScalars(f *testing.F) {
	for _, text := range []string{
		"", "0", "-0", "12.50", "-0.7e+1", "1E-130", "9e125", "1e126", "0e999999999999999999999", "01", ".5", "5.", "1e", "+1", "NaN", "0x1p4",
		"9999999999999999999", "10000000000000000000", "0.0000000000000000001", "12345678901234567890123456789012345678", "9007199254740993",
		"2024-07-29T15:51:28.0719999Z", "2024-02-29t12:00:00.5-12:45", "0000-01-01T00:00:00+00:01", "9999-12-31T23:59:59.999999999-00:00",
		"2024-07-29T1:51:28Z", "2024-07-29T15:51:28,5Z", "2024-07-29T24:00:00Z", "2016-12-31T23:59:60Z", "1990-12-31T15:59:60.50-08:00", "2016-12-30T23:59:60Z", "2024-07-29T15:51:28+24:00",
		"2024-02-29", "2023-02-29", "2024-2-29", "\xff", "a\x00\"\u2028",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fuzzNumber(t, text)
		fuzzTime(t, text)
		fuzzDay(t, text)
		if quoted := Quote(text); !utf8.ValidString(quoted) || len(quoted) > 4*80+5 {
			t.Errorf("Quote(%q) is %q", text, quoted)
		}
	})
}

func fuzzNumber(t *testing.T, text string) {
	n, err := ParseNumber(text)
	q, errQuantity := ParseQuantity(text)
	if isNumber := jsonNumber.MatchString(text); isNumber == errors.Is(err, errNotANumber) {
		t.Fatalf("ParseNumber(%q): %v, and that it is a JSON number is %v", text, err, isNumber)
	} else if isNumber && !json.Valid([]byte(text)) {
		t.Fatalf("%q is no JSON", text)
	} else if !isNumber {
		if errQuantity == nil {
			t.Fatalf("ParseQuantity(%q) is %v", text, q)
		}
		return
	}
	if longest.MatchString(text) || len(text) > 2000 {
		return
	}
	want, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%q is no rational", text)
	}
	if fits := fitsNumber(want); fits != (err == nil) {
		t.Fatalf("ParseNumber(%q): %v, and that it fits is %v", text, err, fits)
	}
	if fits := fitsQuantity(want); fits != (errQuantity == nil) {
		t.Fatalf("ParseQuantity(%q): %v, and that it fits is %v", text, errQuantity, fits)
	}
	same := func(what fmt.Stringer) {
		got, ok := new(big.Rat).SetString(what.String())
		if !ok || got.Cmp(want) != 0 || !jsonNumber.MatchString(what.String()) {
			t.Fatalf("%q is %T %s", text, what, what)
		}
	}
	if err == nil {
		same(n)
		if again, err := ParseNumber(n.String()); err != nil || again != n {
			t.Fatalf("%q is %#v, and as it is written %#v, %v", text, n, again, err)
		}
	}
	if errQuantity == nil {
		same(q)
		if again, err := ParseQuantity(q.String()); err != nil || again != q || q.number() != n || q.Sign() != want.Sign() {
			t.Fatalf("%q is %v, and as it is written %v, %v", text, q, again, err)
		}
	}
}

// fitsNumber reports, by plain arithmetic, whether v has at most 38 significant digits and a
// magnitude from 1e-130 to under 1e126.
func fitsNumber(v *big.Rat) bool {
	if v.Sign() == 0 {
		return true
	}
	power := func(n int64) *big.Rat {
		return new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(n), nil))
	}
	size := new(big.Rat).Abs(v)
	if size.Cmp(power(126)) >= 0 || new(big.Rat).Mul(size, power(130)).Cmp(power(0)) < 0 {
		return false
	}
	whole := new(big.Rat).Mul(size, power(130+38)) // the last of 38 digits of the smallest is a unit
	if !whole.IsInt() {
		return false
	}
	return len(strings.TrimRight(whole.Num().String(), "0")) <= 38
}

func fuzzTime(t *testing.T, text string) {
	got, err := ParseTime(text)
	want, errWant := time.Parse(time.RFC3339, strings.ToUpper(text))
	if leap := leapSecond.FindStringSubmatch(text); leap != nil {
		// The second 59 of it is the last of its month in UTC.
		want, errWant = time.Parse(time.RFC3339, strings.ToUpper(leap[1]+":59.999"+leap[2]))
		if next := want.UTC().Add(time.Millisecond); errWant == nil && !next.Equal(time.Date(next.Year(), next.Month(), 1, 0, 0, 0, 0, time.UTC)) {
			errWant = errors.New("no leap second")
		}
	}
	want = want.UTC()
	due := errWant == nil && rfc3339.MatchString(text) && want.Year() >= 0 && want.Year() <= 9999
	if due != (err == nil) {
		t.Fatalf("ParseTime(%q): %v, and that it is a time is %v", text, err, due)
	}
	if err != nil {
		return
	}
	if since := want.Sub(got); since < 0 || since >= time.Millisecond || FormatTime(got) != want.Format("2006-01-02T15:04:05.000Z") {
		t.Fatalf("%q is %s", text, FormatTime(got))
	}
	if again, err := ParseTime(FormatTime(got)); err != nil || !again.Equal(got) {
		t.Fatalf("%q is %s, and that is %s, %v", text, FormatTime(got), FormatTime(again), err)
	}
	if day, err := ParseDay(string(DayOf(got))); err != nil || day != DayOf(got) {
		t.Fatalf("%q is on %s: %v", text, DayOf(got), err)
	}
}

func fuzzDay(t *testing.T, text string) {
	day, err := ParseDay(text)
	want, errWant := time.Parse(time.DateOnly, text)
	due := errWant == nil && regexp.MustCompile(`^\d{4}-\d\d-\d\d$`).MatchString(text)
	if due != (err == nil) {
		t.Fatalf("ParseDay(%q): %v, and that it is a day is %v", text, err, due)
	}
	if err != nil {
		return
	}
	if string(day) != text || DayOf(want) != day {
		t.Fatalf("%q is %s", text, day)
	}
	before := day.AddDays(-DefaultWindowDays)
	if days := want.Sub(mustDay(t, before)).Hours() / 24; days != DefaultWindowDays && before != "0000-01-01" {
		t.Fatalf("%s is %s days before %s", before, strconv.FormatFloat(days, 'f', -1, 64), day)
	}
}

func mustDay(t *testing.T, day Day) time.Time {
	at, err := time.Parse(time.DateOnly, string(day))
	if err != nil {
		t.Fatal(err)
	}
	return at
}
