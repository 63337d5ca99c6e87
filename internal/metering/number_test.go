package metering

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNumber_EqualByValue(t *testing.T) {
	for _, c := range [][2]string{
		{"1", "1.0"},
		{"100", "1e2"},
		{"0.001", "1E-3"},
		{"0", "-0"},
		{"0", "0e999999999999"},
		{"12.50", "0.125e2"},
		{"-7", "-0.7e+1"},
		{"9007199254740993", "9007199254740993.000"},
	} {
		a, errA := ParseNumber(c[0])
		b, errB := ParseNumber(c[1])
		if errA != nil || errB != nil || a != b {
			t.Errorf("%s and %s: %v %v, %v %v", c[0], c[1], a, errA, b, errB)
		}
	}
}

func TestNumber_OutOfDynamoDBsRangeIsRefused(t *testing.T) {
	for _, text := range []string{
		"1e126", "1e-131", "1e999999999999999999999", "-1e-999999999999999999999",
		"123456789012345678901234567890123456789",
	} {
		if n, err := ParseNumber(text); !errors.Is(err, ErrNumberRange) {
			t.Errorf("%s: %v, %v", text, n, err)
		}
	}
	for _, text := range []string{"1e125", "-9.9e125", "1e-130", "12345678901234567890123456789012345678"} {
		if _, err := ParseNumber(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestNumber_OtherTextIsRefused(t *testing.T) {
	for _, text := range []string{"", "-", ".5", "5.", "01", "1e", "1e+", "+1", "0x1", "NaN", "Infinity", " 1", "1 ", "1_0", "--1", "1.2.3"} {
		if n, err := ParseNumber(text); err == nil {
			t.Errorf("ParseNumber(%q) = %v", text, n)
		}
		if q, err := ParseQuantity(text); err == nil {
			t.Errorf("ParseQuantity(%q) = %v", text, q)
		}
	}
}

// For all JSON numbers, what is parsed and written again has the same value.
func TestNumber_KeepsItsValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?`).Draw(t, "number")
		want, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatalf("%s: not a rational", text)
		}
		if n, err := ParseNumber(text); err == nil {
			if got, _ := new(big.Rat).SetString(n.String()); got == nil || got.Cmp(want) != 0 {
				t.Fatalf("ParseNumber(%s) is %s", text, n)
			}
		} else if !errors.Is(err, ErrNumberRange) {
			t.Fatalf("%s: %v", text, err)
		}

		q, err := ParseQuantity(text)
		if fits := fitsQuantity(want); (err == nil) != fits {
			t.Fatalf("ParseQuantity(%s): %v, and fitting is %v", text, err, fits)
		}
		if err != nil {
			return
		}
		if got, _ := new(big.Rat).SetString(q.String()); got == nil || got.Cmp(want) != 0 {
			t.Fatalf("ParseQuantity(%s) is %s", text, q)
		}
		if strings.ContainsAny(q.String(), "eE+") {
			t.Fatalf("%s is not plain", q)
		}
		if again, err := ParseQuantity(q.String()); err != nil || again != q {
			t.Fatalf("%s is not ==: %v, %v", q, again, err)
		}
	})
}

// fitsQuantity reports, by plain arithmetic, whether v is an integer of at most 19 digits over a
// power of ten of at most 19.
func fitsQuantity(v *big.Rat) bool {
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(19), nil)
	scaled := new(big.Rat).Set(v)
	for range 20 {
		if scaled.IsInt() {
			return new(big.Int).Abs(scaled.Num()).Cmp(limit) < 0
		}
		scaled.Mul(scaled, big.NewRat(10, 1))
	}
	return false
}

func TestQuantity_IsExact(t *testing.T) {
	for text, want := range map[string]string{
		"0.1": "0.1", "0.10": "0.1", "9007199254740993": "9007199254740993", "1e-9": "0.000000001",
		"9999999999999999999": "9999999999999999999", "1e18": "1000000000000000000", "-0": "0", "-0.0": "0", "0e5": "0",
		"1e-19": "0.0000000000000000001", "0.0000000000000000001": "0.0000000000000000001", "-2.50": "-2.5",
	} {
		q, err := ParseQuantity(text)
		if err != nil || q.String() != want {
			t.Errorf("%s: %v, %v", text, q, err)
		}
	}
	for _, text := range []string{"1e19", "10000000000000000000", "1e-20", "1234567890.1234567891", "1e400", "5.551115123125783e-17"} {
		if q, err := ParseQuantity(text); err == nil {
			t.Errorf("%s became %s", text, q)
		}
	}
}

func ExampleNumber_String() {
	for _, text := range []string{"1e5", "1.50", "1e-9", "2.5e-40", "12e100"} {
		n, _ := ParseNumber(text)
		fmt.Println(n)
	}
	// Output:
	// 100000
	// 1.5
	// 0.000000001
	// 25e-41
	// 12e100
}
