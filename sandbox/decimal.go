package sandbox

import (
	"math/big"
	"regexp"
)

// Quantities and money are exact: rationals that are finite decimals, stored and sent as strings.

var decimalForm = regexp.MustCompile(`^-?(0|[1-9][0-9]{0,39})(\.[0-9]{1,40})?$`)

// parseDecimal reads a plain decimal; an empty string is zero.
func parseDecimal(text string) (*big.Rat, bool) {
	if text == "" {
		return new(big.Rat), true
	}
	if !decimalForm.MatchString(text) {
		return nil, false
	}
	return new(big.Rat).SetString(text)
}

// formatDecimal writes every digit of a finite decimal, and no others.
func formatDecimal(r *big.Rat) string {
	digits, _ := r.FloatPrec()
	return r.FloatString(digits)
}

// mustDecimal reads the output of formatDecimal. A double may have a thousand digits.
func mustDecimal(text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return new(big.Rat)
	}
	return r
}
