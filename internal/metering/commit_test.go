package metering

import "testing"

func TestCommitRule_IsThatOfThePartner(t *testing.T) {
	for _, test := range []struct {
		name  string
		entry map[string]any
		want  CommitRule
		fails bool
	}{
		{"no entry", nil, CommitRule{}, false},
		{"absent", map[string]any{"partner": "AWS"}, CommitRule{}, false},
		{"null", map[string]any{"partner": "AWS", "enableCommitWithAdditionalUsageMetering": nil}, CommitRule{}, false},
		{"of another partner", map[string]any{"partner": "AZURE", "enableCommitWithAdditionalUsageMetering": true}, CommitRule{}, false},
		{"metered", map[string]any{"partner": "AWS", "enableCommitWithAdditionalUsageMetering": true}, CommitRule{OnlyBeyond: true}, false},
		{"list price", map[string]any{"partner": "AWS", "enableCommitWithAdditionalUsageMetering": true, "enableCommitWithAdditionalUsageAtListPrice": true}, CommitRule{OnlyBeyond: true, AtListPrice: true}, false},
		{"list price alone", map[string]any{"partner": "AWS", "enableCommitWithAdditionalUsageAtListPrice": true}, CommitRule{}, false},
		{"no bool", map[string]any{"partner": "AWS", "enableCommitWithAdditionalUsageMetering": "yes"}, CommitRule{}, true},
		{"unknown member", map[string]any{"partner": "AWS", "enableCommitPooling": true}, CommitRule{}, true},
		{"without a partner", map[string]any{}, CommitRule{}, true},
	} {
		config := EmptyConfig()
		if test.entry != nil {
			config[configEntries] = []any{test.entry}
		}
		terms := Terms{Entitlement: &Entitlement{Partner: "AWS"}, Config: ConfigVersion{Config: config}}
		if rule, err := terms.CommitRule(); rule != test.want || (err != nil) != test.fails {
			t.Errorf("%s: %+v, %v", test.name, rule, err)
		}
	}
}
