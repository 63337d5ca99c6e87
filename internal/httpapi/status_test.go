package httpapi

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Each generic code has its own status. A status that HTTP or the contract requires instead stays
// with the failure.
func TestStatusOf_EachCodeHasItsOwn(t *testing.T) {
	t.Parallel()
	codes := map[int]metering.Code{}
	for code := metering.Internal; code <= metering.Unavailable; code++ {
		status := statusOf(metering.Errorf(code, "x"))
		if other, taken := codes[status]; taken || http.StatusText(status) == "" {
			t.Errorf("code %d has the status %d, as code %d", code, status, other)
		}
		codes[status] = code
	}
	if len(codes) != len(statuses) {
		t.Errorf("%d codes, %d statuses", len(codes), len(statuses))
	}
	own := refusedWith(http.StatusUnsupportedMediaType, "%s is no JSON", "x")
	for err, want := range map[error]int{
		own: http.StatusUnsupportedMediaType, fmt.Errorf("wrapped: %w", own): http.StatusUnsupportedMediaType,
		&statusError{http.StatusBadRequest, metering.Errorf(metering.Conflict, "x")}: http.StatusBadRequest, fmt.Errorf("x"): http.StatusInternalServerError,
	} {
		if got := statusOf(err); got != want {
			t.Errorf("%v has the status %d, want %d", err, got, want)
		}
	}
	if own.Error() != "x is no JSON" || metering.CodeOf(own) != metering.Invalid {
		t.Errorf("%v, code %d", own, metering.CodeOf(own))
	}
}
