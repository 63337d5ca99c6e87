package metering

import (
	"errors"
	"strconv"
	"strings"
)

// Number is an exact decimal in the range of a DynamoDB number: at most 38 significant digits,
// magnitude 1e-130 to under 1e126. It carries values that are stored and compared, but not used in
// arithmetic: amounts of integrations, numbers in properties and in a metaInfo filter.
//
// The zero value is 0. Two Numbers of the same value are ==, whatever their spelling was.
type Number struct {
	negative bool
	digits   string // significant digits without leading or trailing zeros; empty for 0
	exponent int    // the value is digits * 10^exponent
}

// The errors of ParseNumber.
var (
	errNotANumber  = errors.New("not a JSON number")
	ErrNumberRange = errors.New("a number has at most 38 significant digits and a magnitude from 1e-130 to under 1e126")
)

// ParseNumber reads a JSON number. It returns ErrNumberRange if DynamoDB could not hold the value
// exactly.
func ParseNumber(text string) (Number, error) {
	rest, negative := strings.CutPrefix(text, "-")
	mantissa, exponentText := rest, ""
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		mantissa, exponentText = rest[:i], rest[i+1:]
		if exponentText == "" {
			return Number{}, errNotANumber
		}
	}
	whole, fraction, hasPoint := strings.Cut(mantissa, ".")
	if !allDigits(whole) || (hasPoint && !allDigits(fraction)) || (len(whole) > 1 && whole[0] == '0') {
		return Number{}, errNotANumber
	}
	digits := strings.TrimLeft(whole+fraction, "0")
	trimmed := strings.TrimRight(digits, "0")
	exponent := 0
	if exponentText != "" {
		sign, unsigned := 1, exponentText
		switch exponentText[0] {
		case '-':
			sign, unsigned = -1, exponentText[1:]
		case '+':
			unsigned = exponentText[1:]
		}
		if !allDigits(unsigned) {
			return Number{}, errNotANumber
		}
		n, err := strconv.Atoi(unsigned)
		if err != nil || n > 1<<30 {
			n = 1 << 30 // out of range whatever the digits are, and safe to add to
		}
		exponent = sign * n
	}
	if trimmed == "" {
		return Number{}, nil
	}
	exponent += len(digits) - len(trimmed) - len(fraction)
	magnitude := exponent + len(trimmed) - 1
	if len(trimmed) > 38 || magnitude > 125 || magnitude < -130 {
		return Number{}, ErrNumberRange
	}
	return Number{negative, trimmed, exponent}, nil
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// String returns a valid JSON number, plain if that is short: 12.5, 0.000000001, 1e100.
func (n Number) String() string {
	if n.digits == "" {
		return "0"
	}
	var b strings.Builder
	if n.negative {
		b.WriteByte('-')
	}
	point := len(n.digits) + n.exponent // digits before the decimal point
	switch {
	case n.exponent >= 0 && point <= 38:
		b.WriteString(n.digits)
		b.WriteString(strings.Repeat("0", n.exponent))
	case n.exponent < 0 && point > 0:
		b.WriteString(n.digits[:point])
		b.WriteByte('.')
		b.WriteString(n.digits[point:])
	case point <= 0 && point > -20:
		b.WriteString("0.")
		b.WriteString(strings.Repeat("0", -point))
		b.WriteString(n.digits)
	default:
		b.WriteString(n.digits)
		b.WriteByte('e')
		b.WriteString(strconv.Itoa(n.exponent))
	}
	return b.String()
}

// NumberOf is the Number of an integer.
func NumberOf(n int64) Number {
	number, err := ParseNumber(strconv.FormatInt(n, 10))
	if err != nil {
		panic(err) // no int64 is out of range
	}
	return number
}

// compare is negative, 0 or positive if n is less than, equal to or greater than other.
func (n Number) compare(other Number) int {
	if n.sign() != other.sign() {
		return n.sign() - other.sign()
	}
	order := (n.exponent + len(n.digits)) - (other.exponent + len(other.digits))
	if order == 0 {
		order = strings.Compare(n.digits, other.digits) // neither ends in 0
	}
	return order * n.sign()
}

func (n Number) sign() int {
	switch {
	case n.digits == "":
		return 0
	case n.negative:
		return -1
	default:
		return 1
	}
}
