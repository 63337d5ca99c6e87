package metering

import (
	"fmt"
	"math/big"
	"strings"
)

// Exact is an exact rational number of any size: a sum of quantities, or what is left of one when
// it is rounded for a marketplace. The zero value is 0. An Exact never changes.
type Exact struct{ r *big.Rat }

// ExactOf is the Exact of a quantity.
func ExactOf(q Quantity) Exact {
	return Exact{new(big.Rat).SetFrac(scaled(q.d, q.d.Scale()), powerOf10(q.d.Scale()))}
}

// ParseExact reads what String returns.
func ParseExact(text string) (Exact, error) {
	digits := strings.TrimLeft(strings.TrimPrefix(text, "-"), "0123456789")
	if !strings.HasPrefix(digits, ".") && !strings.HasPrefix(digits, "/") && digits != "" {
		return Exact{}, errNotExact(text)
	}
	r, ok := new(big.Rat).SetString(text)
	x := Exact{r}
	if !ok || x.String() != text {
		return Exact{}, errNotExact(text)
	}
	return x, nil
}

// MustExact is ParseExact of a constant. It panics if the text is not what String returns.
func MustExact(text string) Exact {
	x, err := ParseExact(text)
	if err != nil {
		panic(err)
	}
	return x
}

func errNotExact(text string) error {
	return fmt.Errorf("%s is not an exact number: it must be a decimal or a reduced fraction, such as 0.25 or 1/3", Quote(text))
}

// String returns a plain decimal if there is one, such as 0.25, else a reduced fraction, such as
// 1/3.
func (x Exact) String() string {
	r := x.rat()
	if digits, finite := r.FloatPrec(); finite {
		return r.FloatString(digits)
	}
	return r.String()
}

// Decimal returns x as a plain decimal. If there is none, it is cut off at that many digits after
// the point.
func (x Exact) Decimal(digits int) string {
	if _, finite := x.rat().FloatPrec(); finite {
		return x.String()
	}
	if x.Sign() < 0 {
		return Exact{}.Sub(Exact{}.Sub(x).Floor(digits)).String()
	}
	return x.Floor(digits).String()
}

// Add returns x + y.
func (x Exact) Add(y Exact) Exact { return Exact{new(big.Rat).Add(x.rat(), y.rat())} }

// Sub returns x - y.
func (x Exact) Sub(y Exact) Exact { return Exact{new(big.Rat).Sub(x.rat(), y.rat())} }

// Mul returns x times y.
func (x Exact) Mul(y Exact) Exact { return Exact{new(big.Rat).Mul(x.rat(), y.rat())} }

// Quo returns x / y. It panics if y is 0.
func (x Exact) Quo(y Exact) Exact { return Exact{new(big.Rat).Quo(x.rat(), y.rat())} }

// Cmp is -1, 0 or 1 if x is less than, equal to or greater than y.
func (x Exact) Cmp(y Exact) int { return x.rat().Cmp(y.rat()) }

// Sign is -1, 0 or 1.
func (x Exact) Sign() int { return x.rat().Sign() }

// Floor returns the largest number with that many digits after the point that is at most x. With
// negative digits, it is a multiple of a power of ten.
func (x Exact) Floor(digits int) Exact {
	unit := new(big.Rat).SetInt(powerOf10(max(digits, -digits)))
	if digits > 0 {
		unit.Inv(unit)
	}
	units := new(big.Rat).Quo(x.rat(), unit)
	// The divisor is positive, for which Div rounds down.
	whole := new(big.Int).Div(units.Num(), units.Denom())
	return Exact{unit.Mul(unit, new(big.Rat).SetInt(whole))}
}

// Ceil returns the smallest number with that many digits after the point that is at least x.
func (x Exact) Ceil(digits int) Exact { return Exact{}.Sub(Exact{}.Sub(x).Floor(digits)) }

// Quantity returns x as a Quantity, or false if none holds it exactly.
func (x Exact) Quantity() (Quantity, bool) {
	q, err := ParseQuantity(x.String())
	return q, err == nil
}

// Float64 returns the nearest double.
func (x Exact) Float64() float64 {
	f, _ := x.rat().Float64()
	return f
}

func (x Exact) rat() *big.Rat {
	if x.r == nil {
		return new(big.Rat)
	}
	return x.r
}

// sumOf returns x as a sum. x is a sum of quantities, which sumScale digits hold.
func sumOf(x Exact) sum {
	if q, fits := x.Quantity(); fits {
		return sum{small: q.d}
	}
	r := x.rat()
	scaled := new(big.Int).Mul(r.Num(), powerOf10(sumScale))
	return sum{large: scaled.Quo(scaled, r.Denom())}
}

// exact returns the sum.
func (s *sum) exact() Exact {
	if s.large == nil {
		return ExactOf(Quantity{s.small})
	}
	return Exact{new(big.Rat).SetFrac(s.large, powerOf10(sumScale))}
}
