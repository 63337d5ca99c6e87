package metering

import (
	"errors"
	"fmt"
)

// CommitRule is what the config says about usage beyond the commit of an entitlement.
type CommitRule struct {
	OnlyBeyond  bool // usage draws the commit down first: only what exceeds it is reported
	AtListPrice bool // what exceeds it is metered at list price, not at the discounted one
}

// CommitRule returns the rule of the entitlement's partner. It returns an error if the config has
// something that this version does not know, as it may change what is to be reported.
func (t *Terms) CommitRule() (rule CommitRule, err error) {
	partner := t.Entitlement.Partner
	entry, fault := entryOf(t.Config, partner)
	if fault != "" {
		return rule, errors.New(fault)
	}
	if name := unknownMember(entry, entryMembers); name != "" {
		return rule, fmt.Errorf("the usage metering config of %s has the member %s, which this version does not know", partner, Quote(name))
	}
	for name, to := range map[string]*bool{configEnableCommit: &rule.OnlyBeyond, configEnableListPrice: &rule.AtListPrice} {
		value, isBool := entry[name].(bool)
		if !isBool && entry[name] != nil {
			return CommitRule{}, fmt.Errorf("the usage metering config of %s has a member %s that is neither true nor false", partner, name)
		}
		*to = value
	}
	rule.AtListPrice = rule.AtListPrice && rule.OnlyBeyond
	return rule, nil
}
