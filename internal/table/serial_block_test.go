package table_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func serials(t testing.TB, tbl *table.Table, n int, at time.Time) []int32 {
	t.Helper()
	numbers, err := tbl.NewSerials(t.Context(), "o1", n, at)
	if err != nil || len(numbers) != n {
		t.Fatalf("%d of %d numbers, %v", len(numbers), n, err)
	}
	return numbers
}

func TestSerials_BlocksDoubleWhileUsedUpWithinAMinute(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	counter := func(want int32) {
		t.Helper()
		if n, err := tbl.Serial(t.Context(), "o1"); err != nil || n != want {
			t.Errorf("the counter is %d, %v; want %d", n, err, want)
		}
	}
	all := serials(t, tbl, 1, at)
	counter(8)
	for range 7 {
		all = append(all, serials(t, tbl, 1, at)...)
	}
	counter(8)
	total := 8
	for _, size := range []int{16, 32, 64, 128, 256, 512, 512} {
		total += size
		for range size {
			all = append(all, serials(t, tbl, 1, at)...)
		}
		counter(int32(total))
	}
	if !slices.IsSorted(all) || len(slices.Compact(all)) != total || all[0] != 1 {
		t.Errorf("the numbers are not 1 to %d", total)
	}
	serials(t, tbl, 1, at.Add(time.Minute))
	counter(int32(total + 8)) // a minute later a block is small again
	// A batch takes all that it needs at once, after what is left.
	batch := serials(t, tbl, 1000, at.Add(time.Minute))
	if batch[0] != int32(total+2) || batch[999] != int32(total+1001) {
		t.Errorf("the batch has the numbers %d to %d", batch[0], batch[999])
	}
}

// Two processes never have the same number, and each one's numbers rise.
func TestSerials_AreUniqueAcrossProcesses(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	a, b := table.New(client, name), table.New(client, name)
	at := time.Now()
	seen := map[int32]bool{}
	last := map[*table.Table]int32{}
	for i := range 200 {
		tbl := []*table.Table{a, b}[i/7%2]
		for _, n := range serials(t, tbl, 1+i%3, at) {
			if seen[n] || n <= last[tbl] {
				t.Fatalf("the number %d is given again, or after %d", n, last[tbl])
			}
			seen[n], last[tbl] = true, n
		}
	}
}

// Numbers stay above serialID and below serialLimit. If none is left, groups have none.
func TestSerials_EndAtTheLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		counter, limit int32
		want           []int32
	}{
		{0, 0, []int32{1, 2, 3, 4, 5}},
		{41, 0, []int32{42, 43, 44, 45, 46}},
		{metering.MaxRaisedSerial, metering.MaxRaisedSerial + 3, []int32{metering.MaxRaisedSerial + 1, metering.MaxRaisedSerial + 2, 0, 0, 0}},
		{metering.MaxRaisedSerial, math.MaxInt32, []int32{2000000001, 2000000002, 2000000003, 2000000004, 2000000005}},
		{metering.MaxRaisedSerial, metering.MaxRaisedSerial + 1, []int32{0, 0, 0, 0, 0}},
	} {
		tbl := tabletest.New(t)
		if test.counter > 0 {
			if err := tbl.RaiseSerial(t.Context(), "o1", test.counter); err != nil {
				t.Fatal(err)
			}
		}
		if test.limit > 0 {
			if err := tbl.LimitSerial(t.Context(), "o1", test.limit); err != nil {
				t.Fatal(err)
			}
		}
		var got []int32
		for range test.want {
			got = append(got, serials(t, tbl, 1, time.Now())...)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("above %d and below %d the numbers are %v; want %v", test.counter, test.limit, got, test.want)
		}
	}
	tbl := tabletest.New(t)
	if err := tbl.SetSerial(t.Context(), "o1", math.MaxInt32-2); err != nil {
		t.Fatal(err)
	}
	if got := serials(t, tbl, 4, time.Now()); !slices.Equal(got, []int32{math.MaxInt32 - 1, math.MaxInt32, 0, 0}) {
		t.Errorf("the last numbers are %v", got)
	}
}
