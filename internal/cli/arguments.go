package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// CheckArguments returns a UsageError unless the arguments are those of the description, a word for
// each. One that is described as a|b must be a or b.
func CheckArguments(arguments []string, description string) error {
	wanted := strings.Fields(description)
	if len(arguments) != len(wanted) {
		return UsageError(fmt.Sprintf("it takes %s; arguments given: %d", cmp.Or(description, "flags alone"), len(arguments)))
	}
	for i, argument := range arguments {
		if choice := strings.Split(wanted[i], "|"); len(choice) > 1 && !slices.Contains(choice, argument) {
			return UsageError(fmt.Sprintf("it takes %s: %q must be %s", description, argument, strings.Join(choice, " or ")))
		}
	}
	return nil
}
