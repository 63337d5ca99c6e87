package table_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

var entitlementTime = time.Date(2024, 7, 29, 15, 51, 28, 0, time.UTC)

func putEntitlement(t *testing.T, ctx context.Context, tbl *table.Table, id, name string, ids metering.MarketplaceIDs) {
	t.Helper()
	sent := metering.Entitlement{Partner: "AWS", BuyerID: "b", Name: name, Marketplace: ids}
	change, err := metering.NewEntitlementChange("acme", metering.EntitlementID(id), &sent, metering.Conditions{}, entitlementTime)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tbl.PutEntitlement(ctx, &change); err != nil {
		t.Fatal(err)
	}
}

// The units that docs/data-model.md promises.
func TestEntitlement_Units(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	measured := func(do func(ctx context.Context)) string {
		ctx, consumed := table.CountUnits(t.Context())
		do(ctx)
		read, write := consumed()
		return fmt.Sprintf("%g read, %g write", read, write)
	}
	put := func(id string, size int) func(context.Context) {
		return func(ctx context.Context) {
			putEntitlement(t, ctx, tbl, id, strings.Repeat("x", size), metering.MarketplaceIDs{})
		}
	}
	for _, c := range []struct {
		what, want string
		do         func(context.Context)
	}{
		{"a first PUT", "1 read, 1 write", put("e", 1)},
		{"a second", "1 read, 1 write", put("e", 2)},
		{"one that changes nothing", "1 read, 0 write", put("e", 2)},
		{"one of 30 KB", "1 read, 31 write", put("e", 30<<10)},
		{"a GET of 30 KB", "8 read, 0 write", func(ctx context.Context) {
			if _, err := tbl.Entitlement(ctx, "acme", "e"); err != nil {
				t.Error(err)
			}
		}},
	} {
		if got := measured(c.do); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	for i := range 99 {
		putEntitlement(t, t.Context(), tbl, fmt.Sprint("e", i), "", metering.MarketplaceIDs{})
	}
	putEntitlement(t, t.Context(), tbl, "e", "", metering.MarketplaceIDs{})
	list := measured(func(ctx context.Context) {
		list, err := tbl.Entitlements(ctx, "acme", metering.EntitlementFilter{}, 0, 10)
		if err != nil || len(list) != 10 {
			t.Errorf("%d entitlements, %v", len(list), err)
		}
	})
	if list != "8 read, 0 write" {
		t.Errorf("a list of 100: %s", list)
	}
}

func TestEntitlement_AbsentIsNotFound(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	_, ofEntitlement := tbl.Entitlement(t.Context(), "acme", "e")
	_, ofConnection := tbl.Connection(t.Context(), "acme", "AWS")
	for _, err := range []error{ofEntitlement, ofConnection} {
		if metering.CodeOf(err) != metering.NotFound {
			t.Errorf("%v", err)
		}
	}
}
