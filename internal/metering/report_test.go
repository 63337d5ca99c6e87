package metering

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestKeyedGroupID_IsAUUIDOfItsOwn(t *testing.T) {
	seen := map[GroupID]string{}
	for _, org := range []OrgID{"a", "b", "a1"} {
		for _, key := range []string{"k", "k1", "1", ""} {
			for i := range 12 {
				id := KeyedGroupID(org, key, i)
				if other, twice := seen[id]; twice {
					t.Errorf("%s, %s and %d have the id of %s", org, key, i, other)
				}
				seen[id] = string(org) + ", " + key + ", " + strconv.Itoa(i)
				if _, err := ParseGroupID(string(id)); err != nil || len(id) != 36 || id[14] != '5' || !strings.ContainsRune("89ab", rune(id[19])) {
					t.Errorf("%s is no UUIDv5: %v", id, err)
				}
			}
		}
	}
	// Ids never change: a client may repeat a request after years.
	if id := KeyedGroupID("acme", "key", 3); id != "ed027f1b-7172-59a9-9e67-bb4faf58b587" {
		t.Errorf("the id is %s", id)
	}
}

func TestNewGroupID_IsAUUIDOfItsTime(t *testing.T) {
	at := time.UnixMilli(0x017F22E279B0) // RFC 9562, A.6
	id := NewGroupID(at, [10]byte{0x0C, 0xC3, 0x98, 0xC4, 0xDC, 0x0C, 0x0C, 0x07, 0x39, 0x8F})
	if id != "017f22e2-79b0-7cc3-98c4-dc0c0c07398f" {
		t.Errorf("the id is %s", id)
	}
	if later := NewGroupID(at.Add(time.Millisecond), [10]byte{}); later <= id {
		t.Errorf("%s of a later time is not after %s", later, id)
	}
}

// Of many problems those are stored that fit, and the last says how many others there are.
func TestGroup_StoresProblemsThatFit(t *testing.T) {
	many := make([]Problem, 0, 300)
	for i := range 100 {
		many = append(many,
			Problem{Code: ProblemDimensionUnknown, Severity: SeverityError, Path: "/records/" + strconv.Itoa(i), Message: strings.Repeat("m", 100), Hint: "h"},
			Problem{Code: ProblemLate, Severity: SeverityWarning})
	}
	for n := range len(many) {
		var g Group
		g.keepProblems(many[:n])
		named := 0
		if len(g.Problems) > 0 {
			if _, rest, more := strings.Cut(g.Problems[len(g.Problems)-1].Message, " (and "); more {
				named, _ = strconv.Atoi(rest[:strings.IndexByte(rest, ' ')])
			}
		}
		if errors := (n + 1) / 2; len(g.Problems)+named != errors || sizeOfValue(g.Problems) > MaxStoredProblems {
			t.Fatalf("of %d errors %d are stored, %d named, in %d bytes", errors, len(g.Problems), named, sizeOfValue(g.Problems))
		}
		for _, p := range g.Problems {
			if p.Severity != SeverityError {
				t.Fatal("a warning is stored")
			}
		}
	}
	var g Group
	g.keepProblems([]Problem{{Severity: SeverityError, Message: strings.Repeat("m", 10_000)}})
	if len(g.Problems) != 1 {
		t.Error("a long problem alone is not stored")
	}
}

// A group keeps what forbids its retry, and never more than fits, of the problems of its report.
func TestFirstProblems_KeepWhatForbidsARetry(t *testing.T) {
	for _, length := range []int{1, 500, 5000} {
		for n := range 60 {
			var problems []Problem
			for i := range n {
				p := Problem{Code: ProblemMarketplaceRefused, Severity: SeverityError, Path: "/records/" + strconv.Itoa(i), Message: strings.Repeat("ü", length), Hint: "h"}
				if i > 0 && i == n/2 {
					p.Code = ProblemOutcomeUnknown
				}
				problems = append(problems, p)
			}
			for name, kept := range map[string][]Problem{"first": FirstProblems(problems), "short": ShortProblems(problems)} {
				if (len(kept) == 0) != (n == 0) || len(kept) > n || sizeOfValue(kept) > MaxStoredProblems {
					t.Fatalf("%s of %d problems of %d: %d, of %d bytes", name, n, length, len(kept), sizeOfValue(kept))
				}
				if n > 1 && !kept[0].unresolved() {
					t.Errorf("%s of %d problems: %s", name, n, kept[0].Code)
				}
				if len(kept) < n && !strings.Contains(kept[len(kept)-1].Message, "(and "+strconv.Itoa(n-len(kept))+" more problems: see the report)") {
					t.Errorf("%s of %d problems: %s", name, n, kept[len(kept)-1].Message)
				}
				for _, p := range kept {
					if !utf8.ValidString(p.Message) {
						t.Errorf("%q is no UTF-8", p.Message)
					}
				}
			}
		}
	}
	long := ShortProblems([]Problem{{Code: ProblemConflict, Path: strings.Repeat("p", 1000), Message: strings.Repeat("m", 1000), Hint: strings.Repeat("h", 1000)}})
	if size := sizeOfValue(long); size > 1000 || long[0].Code != ProblemConflict || long[0].Path != "" {
		t.Errorf("%d bytes: %+v", size, long)
	}
}

func TestReport_CheckNamesIndexes(t *testing.T) {
	usage := func(id, entitlement, quantity string) NewGroup {
		return NewGroup{ID: id, EntitlementID: entitlement, Records: []NewRecord{{Key: "cpu", Quantity: quantity}}}
	}
	for _, test := range []struct {
		report Report
		want   string
	}{
		{Report{Batch: true, Groups: []NewGroup{usage("", "e", "1"), usage("u", "e", "2")}}, ""},
		{Report{Batch: true, Groups: []NewGroup{usage("", "e", "0"), usage("", "e", "1"), usage("", "e", "0.0"), usage("", "e", "0e5")}}, "indexes 0, 2 and 3: every quantity is 0"},
		{Report{Batch: true, Groups: []NewGroup{usage("", "e", "1"), usage("", "", "1")}}, "index 1: entitlementID is missing"},
		{Report{Batch: true, Groups: []NewGroup{usage("u", "e", "1"), usage("v", "e", "1"), usage("u", "e", "1")}}, `index 2: id is "u", as at index 0`},
		{Report{Batch: true, Key: "k", Groups: []NewGroup{usage("", "e", "1"), usage("v", "e", "1")}}, "index 1: id is"},
		{Report{Groups: []NewGroup{usage("", "e", "0")}}, "every quantity is 0"},
		{Report{Groups: []NewGroup{usage("", "e", "x")}}, "not a JSON number"},
	} {
		err := test.report.Check("acme")
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v; want %q", err, test.want)
		}
		if known, ok := errors.AsType[*Error](err); err != nil && (!ok || known.Code != Invalid) {
			t.Errorf("%v is not Invalid", err)
		}
	}
}
