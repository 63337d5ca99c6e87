package model

import (
	"slices"
	"strings"
	"testing"
)

// step is a transition of a model: what happens, and the state after it.
type step[S comparable] struct {
	what string
	to   S
}

// variant is a model with or without its guards, and what a search of it must find.
type variant[S comparable] struct {
	name      string
	next      func(S) []step[S] // in a fixed order, on which the counts of violated variants depend
	bad       func(S) string    // the promise that the state breaks, or ""
	violation string            // the promise that is broken first; "" if the variant holds
	states    int               // how many states are reached: all of them, or until the violation
	lastStep  string            // of the shortest trace to the violation
}

// search searches the variant from a state and compares what it finds with what is expected.
func (v *variant[S]) search(t *testing.T, from S) {
	t.Helper()
	type origin struct {
		state S
		what  string
	}
	seen := map[S]origin{from: {}}
	violation, trace := "", []string(nil)
	for queue := []S{from}; len(queue) > 0 && violation == ""; queue = queue[1:] {
		state := queue[0]
		if violation = v.bad(state); violation != "" {
			for s := state; seen[s].what != ""; s = seen[s].state {
				trace = append(trace, seen[s].what)
			}
			slices.Reverse(trace)
			break
		}
		for _, next := range v.next(state) {
			if _, known := seen[next.to]; !known {
				seen[next.to] = origin{state, next.what}
				queue = append(queue, next.to)
			}
		}
	}
	last := ""
	if len(trace) > 0 {
		last = trace[len(trace)-1]
	}
	if violation != v.violation || len(seen) != v.states || last != v.lastStep {
		t.Errorf("%q after %d states, want %q after %d; trace, which should end in %q:\n  %s",
			violation, len(seen), v.violation, v.states, v.lastStep, strings.Join(trace, "\n  "))
	}
}
