package azure

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
)

// A Day is the usage of a resource, dimension and plan on a UTC day, as usageEvents reports it. The
// quantities are doubles there, too.
type Day struct {
	Date      time.Time
	Resource  string
	Dimension string
	Plan      string
	Status    string // Submitted, Accepted, Rejected or Mismatch
	Submitted float64
	Processed float64
	Count     int // of the submitted events
}

// Days returns the usage of the days from the first to the last. It proves a day, not an hour: a
// sum does not show which of the hours it has. Source: "Metered billing retrieve usage events".
func (m *Marketplace) Days(ctx context.Context, first, last time.Time) ([]Day, error) {
	ctx, cancel := m.client.Bound(ctx)
	defer cancel()
	query := url.Values{"usageStartDate": {first.UTC().Format(time.DateOnly)}, "UsageEndDate": {last.UTC().Format(time.DateOnly)}}
	reply, _, _, err := m.do(ctx, http.MethodGet, "usageEvents?"+version+"&"+query.Encode(), nil)
	if err == nil {
		err = reply.Err
	}
	if err != nil {
		return nil, fmt.Errorf("reading Azure's usageEvents: %w", err)
	}
	if reply.Status != http.StatusOK {
		reason, _ := readError(reply.Body)
		return nil, fmt.Errorf("reading Azure's usageEvents: status %d, %s", reply.Status, reason)
	}
	var rows []struct {
		Date      string  `json:"usageDate"`
		Resource  string  `json:"usageResourceId"`
		Dimension string  `json:"dimension"`
		Plan      string  `json:"planId"`
		Status    string  `json:"reconStatus"`
		Submitted float64 `json:"submittedQuantity"`
		Processed float64 `json:"processedQuantity"`
		Count     int     `json:"submittedCount"`
	}
	if err := json.Unmarshal(reply.Body, &rows); err != nil {
		return nil, fmt.Errorf("reading Azure's usageEvents: the response is cut or no list of days: %w", err)
	}
	days := make([]Day, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		date, ok := readTime(r.Date)
		if !ok {
			return nil, fmt.Errorf("reading Azure's usageEvents: usageDate %q is no time", r.Date)
		}
		days = append(days, Day{date, r.Resource, r.Dimension, r.Plan, r.Status, r.Submitted, r.Processed, r.Count})
	}
	return days, nil
}
