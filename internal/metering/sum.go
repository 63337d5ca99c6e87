package metering

import (
	"math/big"
	"strings"

	"github.com/govalues/decimal"
)

// sum is an exact sum of quantities and of products of two, of any size. The zero value is 0.
type sum struct {
	small decimal.Decimal // the sum, as long as a decimal holds it
	large *big.Int        // the sum times 10^sumScale, once a decimal did not hold it; nil before
}

// sumScale is how many digits a sum holds after the point: those of a product of two quantities.
const sumScale = 2 * decimal.MaxScale

// quotientScale is how many digits a quotient has after the point. Source: the contract.
const quotientScale = 9

// add adds a quantity.
func (s *sum) add(q Quantity) {
	if s.large == nil {
		if total, ok := addSmall(s.small, q.d); ok {
			s.small = total
			return
		}
		s.grow()
	}
	s.large.Add(s.large, scaled(q.d, sumScale))
}

// addSum adds another sum.
func (s *sum) addSum(other *sum) {
	if other.large == nil {
		s.add(Quantity{other.small})
		return
	}
	s.grow()
	s.large.Add(s.large, other.large)
}

// addProduct adds a times b. a is a sum of quantities, which has no more digits after the point
// than they have.
func (s *sum) addProduct(a *sum, b Quantity) {
	if s.large == nil && a.large == nil {
		if product, ok := multiplySmall(a.small, b.d); ok {
			if total, ok := addSmall(s.small, product); ok {
				s.small = total
				return
			}
		}
	}
	s.grow()
	var factor *big.Int
	if a.large == nil {
		factor = scaled(a.small, decimal.MaxScale)
	} else {
		factor = new(big.Int).Quo(a.large, powerOf10(sumScale-decimal.MaxScale))
	}
	// The scales of both factors add up to sumScale.
	s.large.Add(s.large, new(big.Int).Mul(factor, scaled(b.d, decimal.MaxScale)))
}

// addQuotient adds amounts divided by price, rounded half up at quotientScale digits. The price is
// over 0 and the amounts are not negative.
func (s *sum) addQuotient(amounts *sum, price Quantity) {
	amounts.grow()
	divisor := scaled(price.d, sumScale)
	// floor((2 * amount * 10^9 + price) / (2 * price)) is the quotient's first digits, half up.
	quotient := new(big.Int).Mul(amounts.large, powerOf10(quotientScale))
	quotient.Add(quotient.Lsh(quotient, 1), divisor)
	quotient.Div(quotient, divisor.Lsh(divisor, 1))
	s.grow()
	s.large.Add(s.large, quotient.Mul(quotient, powerOf10(sumScale-quotientScale)))
}

// grow makes the sum large.
func (s *sum) grow() {
	if s.large == nil {
		s.large = scaled(s.small, sumScale)
	}
}

// quantity returns the sum, or false if a Quantity does not hold it exactly.
func (s *sum) quantity() (Quantity, bool) {
	if s.large == nil {
		return Quantity{s.small.Trim(0)}, true
	}
	q, err := ParseQuantity(s.String())
	return q, err == nil
}

// fits reports whether a Quantity holds the sum exactly.
func (s *sum) fits() bool {
	_, fits := s.quantity()
	return fits
}

// String returns the sum as a plain decimal.
func (s *sum) String() string {
	if s.large == nil {
		return s.small.Trim(0).String()
	}
	digits := new(big.Int).Abs(s.large).String()
	if len(digits) <= sumScale {
		digits = strings.Repeat("0", sumScale+1-len(digits)) + digits
	}
	whole, fraction := digits[:len(digits)-sumScale], strings.TrimRight(digits[len(digits)-sumScale:], "0")
	if fraction != "" {
		whole += "." + fraction
	}
	if s.large.Sign() < 0 {
		whole = "-" + whole
	}
	return whole
}

func addSmall(a, b decimal.Decimal) (decimal.Decimal, bool) {
	if a.IsZero() {
		return b, true
	}
	total, err := a.AddExact(b, max(a.Scale(), b.Scale()))
	return total, err == nil
}

func multiplySmall(a, b decimal.Decimal) (decimal.Decimal, bool) {
	scale := a.Scale() + b.Scale()
	if scale > decimal.MaxScale {
		return decimal.Decimal{}, false
	}
	product, err := a.MulExact(b, scale)
	return product, err == nil
}

// scaled is d times 10^scale. The scale is at least that of d.
func scaled(d decimal.Decimal, scale int) *big.Int {
	coefficient := new(big.Int).SetUint64(d.Coef())
	if d.IsNeg() {
		coefficient.Neg(coefficient)
	}
	return coefficient.Mul(coefficient, powerOf10(scale-d.Scale()))
}

func powerOf10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}
