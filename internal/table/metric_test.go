package table_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func addMetric(ctx context.Context, tbl *table.Table, id, name, description string) error {
	sent := metering.BillableMetric{Name: name, Description: description, AggregationType: metering.AggregateSum}
	m, err := metering.NewMetric("acme", metering.MetricID(id), &sent, entitlementTime)
	if err == nil {
		_, err = tbl.AddMetric(ctx, &m)
	}
	return err
}

// The units that docs/data-model.md promises.
func TestMetric_Units(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	measured := func(do func(ctx context.Context) error) string {
		ctx, consumed := table.CountUnits(t.Context())
		if err := do(ctx); err != nil {
			t.Error(err)
		}
		read, write := consumed()
		return fmt.Sprintf("%g read, %g write", read, write)
	}
	patch := func(p metering.MetricPatch) func(context.Context) error {
		return func(ctx context.Context) error {
			_, _, err := tbl.ChangeMetric(ctx, "acme", "m", entitlementTime, p)
			return err
		}
	}
	name, description, deleted, large := "other", "d", metering.MetricDeleted, strings.Repeat("x", 30<<10)
	for _, c := range []struct {
		what, want string
		do         func(context.Context) error
	}{
		{"a POST", "0 read, 2 write", func(ctx context.Context) error { return addMetric(ctx, tbl, "m", "name", "") }},
		{"a GET", "1 read, 0 write", func(ctx context.Context) error { _, err := tbl.Metric(ctx, "acme", "m"); return err }},
		{"a PATCH", "1 read, 1 write", patch(metering.MetricPatch{Description: &description})},
		{"one that changes nothing", "1 read, 0 write", patch(metering.MetricPatch{Description: &description})},
		{"one that renames", "1 read, 2 write", patch(metering.MetricPatch{Name: &name})},
		{"one that deletes", "1 read, 2 write", patch(metering.MetricPatch{Status: &deleted})},
		{"one of 30 KB", "1 read, 31 write", patch(metering.MetricPatch{Description: &large})},
		{"a GET of 30 KB", "8 read, 0 write", func(ctx context.Context) error { _, err := tbl.Metric(ctx, "acme", "m"); return err }},
		{"a PATCH back", "8 read, 31 write", patch(metering.MetricPatch{Description: &description})},
	} {
		if got := measured(c.do); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	for i := range 99 {
		if err := addMetric(t.Context(), tbl, fmt.Sprint("m", i), fmt.Sprint("name ", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	list := measured(func(ctx context.Context) error {
		metrics, err := tbl.Metrics(ctx, "acme")
		if len(metrics) != 100 || !slices.ContainsFunc(metrics, func(m metering.BillableMetric) bool { return m.Status == metering.MetricDeleted }) {
			t.Errorf("%d metrics", len(metrics))
		}
		return err
	})
	if list != "10 read, 0 write" {
		t.Errorf("a list of 100: %s", list)
	}
}

// An import can't replace a metric, nor take the name of another.
func TestAddMetric_IDAndNameMustBeNew(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	if err := addMetric(t.Context(), tbl, "m", "name", ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ id, name, says string }{{"m", "other", `"m" exists`}, {"m", "name", `"m" exists`}, {"n", "name", `"m" has the name "name"`}} {
		if err := addMetric(t.Context(), tbl, c.id, c.name, ""); metering.CodeOf(err) != metering.Conflict || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s, %s: %v", c.id, c.name, err)
		}
	}
	if err := addMetric(t.Context(), tbl, "n", "other", ""); err != nil { // nothing was taken by what was refused
		t.Error(err)
	}
}

// The units that docs/data-model.md promises.
func TestConfigVersions_Units(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	for i := range 100 {
		if _, _, err := tbl.ChangeConfig(t.Context(), "acme", entitlementTime, metering.ConfigChange{Replace: true, Patch: metering.ConfigPatch{"partnerUsageMeteringConfigs": []any{map[string]any{"partner": []string{"AWS", "AZURE"}[i%2]}}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		offset, limit, size int
		versions            int
		read                float64
	}{{0, 1000, 1 << 20, 100, 4}, {0, 10, 1 << 20, 10, 1}, {50, 10, 1 << 20, 10, 2}, {0, 1000, 400, 7, 4}, {200, 10, 1 << 20, 0, 1}} {
		ctx, consumed := table.CountUnits(t.Context())
		page, _, err := tbl.ConfigVersions(ctx, "acme", c.offset, c.limit, c.size)
		if read, _ := consumed(); err != nil || len(page) != c.versions || read != c.read {
			t.Errorf("%v: %d versions, %g read units, %v", c, len(page), read, err)
		}
	}
	ctx, consumed := table.CountUnits(t.Context())
	if _, err := tbl.ConfigVersion(ctx, "acme", 50); err != nil {
		t.Error(err)
	}
	if read, _ := consumed(); read != 1 {
		t.Errorf("one version: %g read units", read)
	}
}
