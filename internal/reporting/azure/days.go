package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
)

// complete is the reconStatus of a sum that Azure has processed to the end. Any other one, also one
// that is not documented, may change, or needs Azure's support.
const complete = "Accepted"

// A day is the usage of a resource, dimension and plan on a UTC day, as usageEvents reports it.
// Source: "Metered billing retrieve usage events".
type day struct {
	Date      string   `json:"usageDate"`
	Resource  string   `json:"usageResourceId"`
	Dimension string   `json:"dimension"`
	Status    string   `json:"reconStatus"`
	Submitted *float64 `json:"submittedQuantity"`
	Processed *float64 `json:"processedQuantity"`
	Count     int      `json:"submittedCount"`
}

// complete reports whether Azure says that it has processed all that it has, and does not
// contradict itself.
func (d *day) complete() bool {
	return d.Status == complete && d.Submitted != nil && d.Processed != nil && *d.Submitted == *d.Processed
}

// ReadBack calls usageEvents. It adds up the plans of a meter: Azure finds duplicates without them.
//
// It asks for one day more, since the source does not say whether the end is a part of the range;
// but for no day to come, which the source does not say to be valid: its default is today.
func (m *Marketplace) ReadBack(ctx context.Context, date time.Time) (reporting.ReadBack, error) {
	read := reporting.ReadBack{Processed: map[reports.Meter]reports.Processed{}, Resources: map[string]bool{}}
	last := date.AddDate(0, 0, 1)
	if last.After(m.options.Now()) {
		last = date
	}
	days, err := m.days(ctx, date, last)
	if err != nil {
		return read, fmt.Errorf("reading Azure's usageEvents: %w", err)
	}
	for i := range days {
		d := &days[i]
		at, ok := readTime(d.Date)
		if !ok {
			return read, fmt.Errorf("reading Azure's usageEvents: usageDate %q is no time", d.Date)
		}
		resource := strings.ToLower(d.Resource)
		read.Resources[resource] = true
		if !at.Truncate(24 * time.Hour).Equal(date) {
			continue
		}
		meter := reports.Meter{Resource: resource, Dimension: d.Dimension}
		sum, another := read.Processed[meter]
		sum.Complete = d.complete() && (sum.Complete || !another)
		if another && sum.Status != d.Status {
			sum.Status += ", "
		}
		if sum.Status != d.Status {
			sum.Status += d.Status
		}
		if d.Processed != nil {
			sum.Quantity += *d.Processed
		}
		sum.Records += max(d.Count, 1)
		read.Processed[meter] = sum
	}
	return read, nil
}

func (m *Marketplace) days(ctx context.Context, first, last time.Time) (days []day, err error) {
	ctx, cancel := m.client.Bound(ctx)
	defer cancel()
	reply, err := m.usageEvents(ctx, first, last)
	switch {
	case errors.Is(err, errCredentials):
		return nil, fmt.Errorf("%w: %w", reporting.ErrRefused, err)
	case err != nil:
		return nil, err
	case reply.Err != nil:
		return nil, reply.Err
	case reply.Status != http.StatusOK:
		reason, _ := readError(reply.Body)
		err = fmt.Errorf("status %d, %s", reply.Status, reason)
		if reply.Status == http.StatusUnauthorized || reply.Status == http.StatusForbidden {
			err = fmt.Errorf("%w: %w", reporting.ErrRefused, err)
		}
		return nil, err
	}
	err = json.Unmarshal(reply.Body, &days)
	if err == nil && days == nil {
		err = errors.New("it is null")
	}
	if err != nil {
		return nil, fmt.Errorf("the response is cut or no list of days: %w", err)
	}
	return days, nil
}

func (m *Marketplace) usageEvents(ctx context.Context, first, last time.Time) (exchange.Reply, error) {
	query := url.Values{"usageStartDate": {first.UTC().Format(time.DateOnly)}, "UsageEndDate": {last.UTC().Format(time.DateOnly)}}
	reply, _, _, err := m.do(ctx, http.MethodGet, "usageEvents?"+version+"&"+query.Encode(), nil)
	return reply, err
}
