package reporting

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// A list of which some were never called must not look as if all were.
func TestAtOnce_EndsWithAnErrorIfTheContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int32
	err := atOnce(ctx, 2, 100, func(context.Context, int) error {
		calls.Add(1)
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || calls.Load() == 100 {
		t.Errorf("%d calls, %v", calls.Load(), err)
	}
}

func TestAtOnce_RepeatsAThrottledCall(t *testing.T) {
	t.Parallel()
	var calls, throttled atomic.Int32
	err := atOnce(t.Context(), 4, 20, func(_ context.Context, i int) error {
		calls.Add(1)
		if i%5 == 0 && throttled.Add(1) <= 4 {
			return metering.Errorf(metering.Unavailable, "throttled")
		}
		return nil
	})
	if err != nil || calls.Load() != 24 {
		t.Errorf("%d calls, %v", calls.Load(), err)
	}
	failure := errors.New("no throttle")
	if err := atOnce(t.Context(), 4, 20, func(context.Context, int) error { return failure }); !errors.Is(err, failure) {
		t.Error(err)
	}
}

// An hour that can't be written does not keep the response of another one from being stored.
func TestEach_OneThatFailsDoesNotEndTheOthers(t *testing.T) {
	t.Parallel()
	failure := errors.New("it can't be written")
	var calls, throttled atomic.Int32
	err := each(t.Context(), 100, func(i int) error {
		calls.Add(1)
		switch {
		case i == 0:
			return failure
		case i == 7 && throttled.Add(1) == 1:
			return metering.Errorf(metering.Unavailable, "throttled")
		}
		return nil
	})
	if !errors.Is(err, failure) || calls.Load() != 101 {
		t.Errorf("%d calls, %v", calls.Load(), err)
	}
}
