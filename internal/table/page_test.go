package table

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/table/listjson"
)

// For all groups and limits: a page has the first groups, at least one. It ends before the first
// group that exceeds the limit of groups or makes the page, in a JSON string, larger than its size
// limit.
func TestList_PageEndsByItsLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.SampledFrom([]rune{'"', '\\', 'a', 'b', ',', 'ü'}), 0, 12, -1)
		groups := rapid.SliceOfN(text, 0, 12).Draw(t, "groups")
		limit, most := rapid.IntRange(1, 8).Draw(t, "limit"), rapid.IntRange(0, 120).Draw(t, "size")

		want, size := 0, 0
		for want < len(groups) && want < limit {
			asString, err := json.Marshal(strings.Join(groups[:want+1], ","))
			if err != nil {
				t.Fatal(err)
			}
			if size = len(asString) - len(`""`); want > 0 && size > most {
				break
			}
			want++
		}

		const begun = `{"groups":["`
		p := page{json: []byte(begun), begin: len(begun), limit: limit, size: sizeLimit{max: most}}
		var added []string
		for _, g := range groups {
			if p.full {
				break
			}
			before := len(p.json)
			if len(added) > 0 {
				p.json = append(p.json, ',')
			}
			p.json = append(p.json, g...)
			if p.add(listjson.Group{Page: p.json[p.begin:], Position: []byte(g)}) {
				added = append(added, g)
			} else {
				p.json = p.json[:before]
			}
		}
		if !slices.Equal(added, groups[:want]) || p.count != want || p.full != (want < len(groups)) {
			t.Fatalf("limit %d, size %d: the page has %d of %q, full %v, want %d", limit, most, p.count, groups, p.full, want)
		}
		if want > 0 && string(p.last) != groups[want-1] {
			t.Fatalf("the last group is %q, want %q", p.last, groups[want-1])
		}
	})
}
