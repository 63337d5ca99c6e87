package metering

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestExact_StringIsReadBack(t *testing.T) {
	for _, text := range []string{"0", "1", "-1", "0.25", "-0.001", "1/3", "-22/7", "12345678901234567890.123456789012345678901234567890123456789"} {
		if x, err := ParseExact(text); err != nil || x.String() != text {
			t.Errorf("ParseExact(%q) is %s, %v", text, x, err)
		}
	}
	for _, text := range []string{"", "-", "1.", ".5", "01", "1.0", "2/6", "1/0", "1/2/3", "1e5", "+1", "-0", "0x1", "1_0", "NaN", "Inf", " 1", "1/-3", "0.5/2", "4/2"} {
		if x, err := ParseExact(text); err == nil {
			t.Errorf("ParseExact(%q) is %s, want an error", text, x)
		}
	}
}

func TestExact_IsRationalArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) (Exact, *big.Rat) {
			r := big.NewRat(rapid.Int64().Draw(t, label), rapid.Int64Range(1, 1<<40).Draw(t, label+" denominator"))
			x, err := ParseExact((Exact{r}).String())
			if err != nil {
				t.Fatal(err)
			}
			return x, r
		}
		x, a := draw("x")
		y, b := draw("y")
		for name, pair := range map[string][2]*big.Rat{
			"sum":        {x.Add(y).rat(), new(big.Rat).Add(a, b)},
			"difference": {x.Sub(y).rat(), new(big.Rat).Sub(a, b)},
			"product":    {x.Mul(y).rat(), new(big.Rat).Mul(a, b)},
		} {
			if pair[0].Cmp(pair[1]) != 0 {
				t.Fatalf("%s of %s and %s is %s, want %s", name, x, y, pair[0], pair[1])
			}
		}
		if y.Sign() != 0 && x.Quo(y).Mul(y).Cmp(x) != 0 {
			t.Fatalf("%s / %s * %s is not %s", x, y, y, x)
		}
		digits := rapid.IntRange(-5, 12).Draw(t, "digits")
		unit := new(big.Rat).SetInt64(1)
		for range max(digits, -digits) {
			unit.Mul(unit, big.NewRat(1, 10))
		}
		if digits < 0 {
			unit.Inv(unit)
		}
		floor, ceil := x.Floor(digits), x.Ceil(digits)
		if floor.Cmp(x) > 0 || x.Sub(floor).Cmp(Exact{unit}) >= 0 || ceil.Cmp(x) < 0 || ceil.Sub(x).Cmp(Exact{unit}) >= 0 ||
			!floor.Quo(Exact{unit}).rat().IsInt() || !ceil.Quo(Exact{unit}).rat().IsInt() {
			t.Fatalf("%s at %d digits is %s to %s", x, digits, floor, ceil)
		}
		if x.rat().Cmp(a) != 0 || y.rat().Cmp(b) != 0 {
			t.Fatal("an operand changed")
		}
	})
}

func TestExact_DecimalIsExactOrCut(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0", "1/3": "0.333", "-1/3": "-0.333", "2/3": "0.666", "-2/3": "-0.666", "7000/3": "2333.333", "1/3000": "0", "-1/3000": "0",
		"0.123456789": "0.123456789", "-12.5": "-12.5",
	} {
		x, err := ParseExact(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := x.Decimal(3); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

func TestExact_IsEachQuantity(t *testing.T) {
	for _, text := range []string{"0", "0.1", "-2.5", "9999999999999999999", "0.0000000000000000001", "100"} {
		q := quantity(t, text)
		back, ok := ExactOf(q).Quantity()
		if !ok || back != q {
			t.Errorf("%s is %s as an Exact, and back %s, %t", text, ExactOf(q), back, ok)
		}
	}
	third := ExactOf(quantityOf(1)).Quo(ExactOf(quantityOf(3)))
	if q, ok := third.Quantity(); ok {
		t.Errorf("1/3 is the quantity %s", q)
	}
}
