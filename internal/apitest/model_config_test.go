package apitest

import (
	"maps"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"
)

// The config: what its three operations have in common.

var oneConfig, otherConfig = `{"partnerUsageMeteringConfigs":[{"partner":"AWS"}]}`, `{"partnerUsageMeteringConfigs":[{"partner":"GCP"}]}`

func configured(method, body string, ifMatch ...string) request {
	r := request{method: method, path: "/usageMeteringConfigInfo", body: body, headers: map[string]string{}, touches: "config"}
	if body != "" {
		r.headers["Content-Type"] = "application/json"
	}
	for _, etag := range ifMatch {
		r.headers["If-Match"] = etag
	}
	return r
}

func configBody(entries []any) doc {
	return doc{"partnerUsageMeteringConfigs": append([]any{}, entries...)}
}

// drawChange draws a change of the config by PUT or PATCH.
func drawChange(t *rapid.T, w *model, o *organization, method string) (request, rule) {
	r := configured(method, drawConfig(t, o))
	r.headers["Content-Type"] = "application/json"
	if roll(t, "other type", 10) == 9 {
		r.headers["Content-Type"] = "application/merge-patch+json"
	}
	o.drawConditions(t, "config", r.headers)
	return r, ruleOfChange(w.now, r)
}

// ruleOfChange is the rule for a change of the config.
func ruleOfChange(now time.Time, r request) rule {
	return func(o *organization, k *modelKey) reply {
		match, noneMatch := o.meets("config", r.headers)
		switch {
		case r.method == "PUT" && r.headers["Content-Type"] != "application/json":
			return reply{status: 415}
		case slices.Contains(unreadableConfigs, r.body):
			return reply{status: 400}
		case !match || !noneMatch:
			return reply{status: 412}
		}
		before, tags := o.config, o.tags("config")
		if r.method == "PUT" {
			before = nil
		}
		entries, ok := mergeConfig(before, values(r.body).(doc))
		if !ok {
			return reply{status: 400}
		}
		answer := reply{status: 200, body: configBody(entries), tags: tags, version: tags.version}
		if !equal(answer.body, configBody(o.config)) { // otherwise nothing is written
			answer.version++
			answer.then = func() {
				o.config, tags.version = entries, answer.version
				o.addVersion(now, k)
			}
		}
		return answer
	}
}

var unreadableConfigs = []string{
	``, `[]`, `{"partners":[]}`, `{} {}`, `{"partnerUsageMeteringConfigs":[{"partner":"AWS","partner":"AWS"}]}`,
	`{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":1}]}`,
	`{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMapping":{"k":{"conversionMultiplier":1}}}]}`,
}

// drawConfig draws the body of a change.
func drawConfig(t *rapid.T, o *organization) string {
	switch roll(t, "special", 16) {
	case 14:
		return pick(t, "body", `{}`, `{"partnerUsageMeteringConfigs":null}`, `{"partnerUsageMeteringConfigs":[]}`)
	case 15:
		return pick(t, "body", unreadableConfigs...)
	}
	var entries []string
	for range 1 + roll(t, "entries", 2) {
		members := []string{`"partner":"` + pick(t, "partner", "AWS", "AWS", "AWS", "AWS", "AWS", "GCP", "GCP", "GCP", "AZURE", "AWS_CHINA", "ORB", "", "NOBODY") + `"`}
		add := func(odds int, name string, values ...string) {
			if roll(t, "with "+name, odds) == odds-1 {
				members = append(members, `"`+name+`":`+pick(t, name, values...))
			}
		}
		add(3, "enableDimensionMapping", "true", "false", "null")
		add(6, "enableCommitWithAdditionalUsageMetering", "true", "false", "null")
		add(6, "enableBillableDimension", "true", "false", "null")
		add(2, "dimensionMapping", `{}`, `null`, `{"k":null}`, `{"k":null}`, `{"k":null,"l":null}`, `{"k":{"dimensionKey":"d","convertionMultiplier":1.50}}`, `{"k":{"dimensionKey":"f","convertionMultiplier":3}}`, `{"k":{"dimensionKey":"d","mappingMode":"","convertionMultiplier":1}}`,
			`{"k":{"convertionMultiplier":2}}`, `{"k":{"dimensionKey":`+quoted(o.name)+`,"convertionMultiplier":1}}`,
			`{"k":{"convertionMultiplier":1.5e0}}`, `{"l":{"dimensionKey":"e","mappingMode":"AMOUNT"}}`, `{"l":{"mappingMode":"QUANTITY"}}`, `{"ü.\"":{"dimensionKey":"b.c","convertionMultiplier":1E2},"a b":{"dimensionKey":"ü","convertionMultiplier":1e-9}}`, `{"k":{"mappingMode":null},"l":null}`,
			`{"k":{"dimensionKey":null}}`, `{"k":{"dimensionKey":"d","convertionMultiplier":0}}`, `{"":{"dimensionKey":"d","convertionMultiplier":1}}`)
		add(3, "dimensionMappingV2", `null`, `{"v":[]}`, `{"v":null}`, `{"ü.\"":[]}`, `{"v":[{"dimensionKey":"d","convertionMultiplier":0.1}]}`,
			`{"w":[{"dimensionKey":"d","mappingMode":"AMOUNT"},{"dimensionKey":"e","convertionMultiplier":9007199254740993}]}`, `{"v":[{"dimensionKey":"d"}]}`)
		entries = append(entries, "{"+strings.Join(members, ",")+"}")
	}
	return `{"partnerUsageMeteringConfigs":[` + strings.Join(entries, ",") + `]}`
}

// mergeConfig merges a patch into the entries, matched by partner. It reports false if the result
// is not allowed.
func mergeConfig(entries []any, patch doc) (merged []any, ok bool) {
	patches, named := patch["partnerUsageMeteringConfigs"]
	if !named {
		return entries, true
	}
	list, _ := patches.([]any) // null means no entries
	if list != nil {
		merged = slices.Clone(entries)
	}
	seen := map[any]bool{}
	for _, entry := range list {
		partner := entry.(doc)["partner"]
		at := slices.IndexFunc(merged, func(e any) bool { return e.(doc)["partner"] == partner })
		if at < 0 {
			at, merged = len(merged), append(merged, doc{})
		}
		merged[at] = mergePatch(merged[at], entry)
		if seen[partner] || !slices.Contains([]any{"AWS", "AWS_CHINA", "AZURE", "GCP", "ORB"}, partner) || !allowedEntry(merged[at].(doc)) {
			return nil, false
		}
		seen[partner] = true
	}
	return merged, true
}

// mergePatch is RFC 7396's.
func mergePatch(target, patch any) any {
	members, ok := patch.(doc)
	if !ok {
		return patch
	}
	merged, _ := target.(doc)
	if merged = maps.Clone(merged); merged == nil {
		merged = doc{}
	}
	for name, value := range members {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = mergePatch(merged[name], value)
		}
	}
	return merged
}

func allowedEntry(entry doc) bool {
	mappings, _ := entry["dimensionMapping"].(doc)
	arrays, _ := entry["dimensionMappingV2"].(doc)
	for source, value := range mappings {
		if source == "" || !allowedMapping(value.(doc)) {
			return false
		}
	}
	for source, array := range arrays {
		if source == "" || slices.ContainsFunc(array.([]any), func(value any) bool { return !allowedMapping(value.(doc)) }) {
			return false
		}
	}
	return true
}

func allowedMapping(value doc) bool {
	key, _ := value["dimensionKey"].(string)
	mode, _ := value["mappingMode"].(string)
	multiplier, _ := value["convertionMultiplier"].(exact)
	return key != "" && (mode == "AMOUNT" || multiplier != "" && multiplier != "0" && multiplier[0] != '-')
}
