package metering

import (
	"errors"
	"fmt"

	"github.com/govalues/decimal"
)

// Quantity is an exact decimal of at most 19 digits, of which at most 19 are after the point: a
// metered quantity or a conversion multiplier. The zero value is 0.
//
// Two Quantities of the same value are ==.
type Quantity struct{ d decimal.Decimal }

// ParseQuantity reads a JSON number. It returns an error with the reason if text is not a number or
// the value does not fit; it never rounds.
func ParseQuantity(text string) (Quantity, error) {
	if plainAndShort(text) {
		d, err := decimal.Parse(text)
		if err != nil {
			return Quantity{}, errNotANumber
		}
		return Quantity{d.Trim(0)}, nil
	}
	n, err := ParseNumber(text)
	if errors.Is(err, errNotANumber) {
		return Quantity{}, err
	}
	if err != nil || len(n.digits) > decimal.MaxPrec || n.exponent < -decimal.MaxScale {
		return Quantity{}, errQuantityRange(text)
	}
	d, err := decimal.Parse(n.String())
	if err != nil {
		return Quantity{}, errQuantityRange(text)
	}
	return Quantity{d.Trim(0)}, nil
}

// plainAndShort reports whether text is a number of the form that nearly all usage has: no sign, no
// exponent, and so few digits that the decimal holds it exactly.
func plainAndShort(text string) bool {
	if text == "" || len(text) > decimal.MaxPrec || text[0] == '.' || text[len(text)-1] == '.' {
		return false
	}
	for i := range len(text) {
		if text[i] != '.' && (text[i] < '0' || text[i] > '9') {
			return false
		}
	}
	return text[0] != '0' || len(text) == 1 || text[1] == '.'
}

func errQuantityRange(text string) error {
	if len(text) > 60 {
		text = text[:60] + "..."
	}
	return fmt.Errorf("%s does not fit: a quantity has at most 19 digits, at most 19 of them after the point", text)
}

// Sign is -1, 0 or 1.
func (q Quantity) Sign() int { return q.d.Sign() }

// String returns the plain decimal, without exponent or trailing zeros: a valid JSON number.
func (q Quantity) String() string { return q.d.String() }

// Append appends the quantity as String spells it.
func (q Quantity) Append(b []byte) []byte {
	b, err := q.d.AppendText(b)
	if err != nil {
		panic(err) // every decimal has a text
	}
	return b
}

// number is the Number of the same value.
func (q Quantity) number() Number {
	n, err := ParseNumber(q.String())
	if err != nil {
		panic("metering: a quantity that is no number: " + q.String())
	}
	return n
}

// quantityOf is the Quantity of a count.
func quantityOf(n int64) Quantity { return Quantity{decimal.MustNew(n, 0)} }
