// Package figure measures several sides in turns and prints the results, one line per figure, for
// `make bench`. docs/performance.md explains the figures. Only benchmarks import it.
package figure

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Print prints a figure: the measured value and the goal.
func Print(name string, value float64, unit, goal string) {
	digits := 2
	if value == float64(int64(value)) {
		digits = 0
	}
	// go test has printed the benchmark's name on this line, without a newline.
	fmt.Printf("\nbench: %s %.*f %s (goal %s)\n", name, digits, value, unit, goal)
}

// Rounds is the number of measurements of a benchmark: ROUNDS, or n if that is not set.
func Rounds(b *testing.B, n int) int {
	b.Helper()
	text := os.Getenv("ROUNDS")
	if text == "" {
		return n
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("ROUNDS is %q: it must be a number of at least 1", text)
	}
	return n
}

// Milliseconds measures how long the work takes.
func Milliseconds(work func()) func() float64 {
	return func() float64 {
		begun := time.Now()
		work()
		return time.Since(begun).Seconds() * 1000
	}
}

// Measurements are the measured values of each side in each round.
type Measurements [][]float64

// InTurns has each side measure itself once per round, and every round begins with the next side: a
// temporary slowdown of the machine affects all sides.
func InTurns(rounds int, sides ...func() float64) Measurements {
	m := make(Measurements, len(sides))
	for round := range rounds {
		for i := range sides {
			side := (round + i) % len(sides)
			m[side] = append(m[side], sides[side]())
		}
	}
	return m
}

// Median is the median of the side's measured values.
func (m Measurements) Median(side int) float64 { return Median(m[side]) }

// Ratio is the median of the rounds' ratios of one side to another.
func (m Measurements) Ratio(side, to int) float64 {
	ratios := make([]float64, len(m[side]))
	for round := range ratios {
		ratios[round] = m[side][round] / m[to][round]
	}
	return Median(ratios)
}

// Median is the middle one of the values.
func Median[T cmp.Ordered](values []T) T {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}
