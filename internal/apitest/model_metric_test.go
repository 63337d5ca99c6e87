package apitest

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// The model of billable metrics: o.all("metric") has them as the API returns them, by id.

// metricIDs are the ids that the service makes in tests: in each organization the same, whatever
// the others do.
type metricIDs struct {
	mu   sync.Mutex
	last map[metering.OrgID]int
}

var madeMetricID = regexp.MustCompile(`bm-[0-9a-z]+`)

func (m *metricIDs) next(org metering.OrgID) metering.MetricID {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		m.last = map[metering.OrgID]int{}
	}
	m.last[org]++
	return metering.MetricID(fmt.Sprint("bm-", m.last[org]))
}

func (m *metricIDs) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = nil
}

// importedMetric is an operator's import of a metric; it does nothing if the id exists.
func importedMetric(id string, members ...doc) request {
	return request{operator: func(ctx context.Context, tbl *table.Table, org string) error {
		body := doc{
			"id": id, "organizationId": org, "name": "of " + id, "aggregationType": "SUM", "status": "ACTIVE",
			"creationTime": "2024-07-28T00:00:00.000Z", "lastUpdateTime": "2024-07-28T00:00:00.000Z",
		}
		for _, m := range members {
			maps.Copy(body, m)
		}
		m, err := wire.DecodeStoredMetric([]byte(toText(body)))
		if err == nil {
			_, err = tbl.Metric(ctx, metering.OrgID(org), m.ID)
		}
		if metering.CodeOf(err) == metering.NotFound {
			_, err = tbl.AddMetric(ctx, &m)
		}
		return err
	}}
}

// ofMetric is a request for a metric.
func ofMetric(method, id, body string) request {
	r := request{method: method, path: "/billableMetric/" + url.PathEscape(id), body: body}
	if body != "" {
		r.headers = map[string]string{"Content-Type": "application/json"}
	}
	return r
}

func creatingMetric(body string) request {
	return request{method: "POST", path: "/billableMetric", body: body, headers: map[string]string{"Content-Type": "application/json"}}
}

func listingMetrics(query string) request {
	return request{method: "GET", path: "/billableMetric", query: query}
}

const oneMetric = `{"name": "tokens", "aggregationType": "SUM"}`

var drawnMetricNames = []string{"tokens", "seats", "ü #1"}

func drawMetricID(t *rapid.T, o *organization) string {
	return pick(t, "metric", append(slices.Sorted(maps.Keys(o.all("metric"))), "absent")...)
}

// nameOwner is the id of the ACTIVE metric of that name other than one; "" if none has it.
func (o *organization) nameOwner(name any, other string) string {
	for id, m := range o.all("metric") {
		if id != other && m["name"] == name && m["status"] == "ACTIVE" {
			return id
		}
	}
	return ""
}

func (o *organization) listedMetrics(status string, order func(a, b any) int) []any {
	list := []any{}
	for m := range maps.Values(o.all("metric")) {
		if status == "" || m["status"] == status {
			list = append(list, m)
		}
	}
	slices.SortFunc(list, order)
	return list
}

// The model of the versions of the config: o.all("version") has them by their number.

// addVersion adds the config as the next version.
func (o *organization) addVersion(now time.Time, k *modelKey) {
	n := len(o.all("version")) + 1
	v := doc{"version": exact(fmt.Sprint(n)), "time": milliseconds(now), "keyID": "", "config": configBody(o.config)}
	if k != nil {
		v["keyID"] = k.secret.Hash().ID()
	}
	o.all("version")[fmt.Sprint(n)] = v
}

// newestVersions returns all versions, newest first.
func (o *organization) newestVersions() []any {
	list := []any{}
	for n := len(o.all("version")); n > 0; n-- {
		list = append(list, o.all("version")[fmt.Sprint(n)])
	}
	return list
}
