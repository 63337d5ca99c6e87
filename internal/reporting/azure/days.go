package azure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

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
	texts := map[string]string{}
	err := m.days(ctx, date, last, func(d *day) error {
		at, ok := readTime(d.Date)
		if !ok {
			return fmt.Errorf("usageDate %.40q is no time", d.Date)
		}
		resource := once(texts, strings.ToLower(d.Resource))
		read.Resources[resource] = true
		if at.Truncate(24 * time.Hour).Equal(date) {
			d.Dimension, d.Status = once(texts, d.Dimension), once(texts, d.Status)
			d.addTo(read.Processed, resource)
		}
		if len(read.Processed) > maxMeters || len(read.Resources) > maxMeters {
			return fmt.Errorf("it has more than %d resources and dimensions", maxMeters)
		}
		return nil
	})
	if err != nil {
		return read, fmt.Errorf("reading Azure's usageEvents: %w", err)
	}
	return read, nil
}

// once returns the text as it is stored already: rows have the same ones again and again.
func once(texts map[string]string, text string) string {
	if stored, ok := texts[text]; ok {
		return stored
	}
	texts[text] = text
	return text
}

// addTo adds the usage to that of its meter.
func (d *day) addTo(processed map[reports.Meter]reports.Processed, resource string) {
	meter := reports.Meter{Resource: resource, Dimension: d.Dimension}
	sum, another := processed[meter]
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
	processed[meter] = sum
}

// days calls take for each row of usageEvents.
func (m *Marketplace) days(ctx context.Context, first, last time.Time, take func(*day) error) error {
	reply, err := m.usageEvents(ctx, cmp.Or(m.options.Timeout, daysTimeout), first, last, take)
	switch {
	case errors.Is(err, errCredentials):
		return fmt.Errorf("%w: %w", reporting.ErrRefused, err)
	case err != nil:
		return err
	case reply.Err != nil:
		return reply.Err
	case reply.Status != http.StatusOK:
		reason, _ := readError(reply.Body)
		err = fmt.Errorf("status %d, %s", reply.Status, reason)
		if reply.Status == http.StatusUnauthorized || reply.Status == http.StatusForbidden {
			err = fmt.Errorf("%w: %w", reporting.ErrRefused, err)
		}
		return err
	}
	return nil
}

// Bounds of a response of usageEvents: Azure has no pages. A row has some 700 bytes, so that a day
// and the next one of 6,000 resources with 30 dimensions fit. maxMeters is of a day, and bounds the
// memory: some 25 MB.
const (
	maxDays     = 256 << 20
	maxMeters   = 200_000
	daysTimeout = 2 * time.Minute
)

// usageEvents calls usageEvents, and take for each row of the response. The reply has an error if
// that is no whole list. A timeout of 0 is that of other calls.
func (m *Marketplace) usageEvents(ctx context.Context, timeout time.Duration, first, last time.Time, take func(*day) error) (exchange.Reply, error) {
	client := m.client.Listing(timeout, maxDays, func(body io.Reader) error { return eachDay(body, take) })
	ctx, cancel := client.Bound(ctx)
	defer cancel()
	query := url.Values{"usageStartDate": {first.UTC().Format(time.DateOnly)}, "UsageEndDate": {last.UTC().Format(time.DateOnly)}}
	reply, _, _, err := m.do(ctx, client, http.MethodGet, "usageEvents?"+version+"&"+query.Encode(), nil)
	return reply, err
}

func eachDay(body io.Reader, take func(*day) error) error {
	decoder := jsontext.NewDecoder(body)
	err := func() error {
		if begin, err := decoder.ReadToken(); err != nil || begin.Kind() != jsontext.KindBeginArray {
			return cmp.Or(err, errors.New("it is no array"))
		}
		for decoder.PeekKind() != jsontext.KindEndArray {
			var d day
			if err := json.UnmarshalDecode(decoder, &d); err != nil {
				return err
			}
			if err := take(&d); err != nil {
				return err
			}
		}
		if _, err := decoder.ReadToken(); err != nil {
			return err
		}
		if _, err := decoder.ReadToken(); !errors.Is(err, io.EOF) {
			return cmp.Or(err, errors.New("something follows the array"))
		}
		return nil
	}()
	if err != nil {
		return fmt.Errorf("the response is cut or no list of days: %w", err)
	}
	return nil
}
