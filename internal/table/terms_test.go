package table_test

import (
	"fmt"
	"testing"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func storeEntitlement(t *testing.T, tbl *table.Table, id, body string) {
	t.Helper()
	sent, err := wire.DecodeEntitlement([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	change, err := metering.NewEntitlementChange("o1", metering.EntitlementID(id), &sent, metering.Conditions{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tbl.PutEntitlement(t.Context(), &change); err != nil {
		t.Fatal(err)
	}
}

// Terms are read for each call: a change is seen at once, also by a process that holds what it has
// parsed before. Keys that DynamoDB leaves unprocessed are asked for again.
func TestTermsOf_SeesEachChange(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	writer := table.New(client, name)
	reader := table.New(tabletest.NewClient(halfBatches{}), name)
	ids := []metering.EntitlementID{"absent"}
	for i := range 12 {
		id := fmt.Sprintf("e%d", i)
		ids = append(ids, metering.EntitlementID(id))
		storeEntitlement(t, writer, id, `{"partner":"AWS","buyerID":"b0"}`)
	}
	for round := range 4 {
		if round > 0 {
			storeEntitlement(t, writer, "e3", fmt.Sprintf(`{"partner":"AWS","buyerID":"b%d"}`, round))
		}
		terms, err := reader.TermsOf(t.Context(), "o1", ids, round == 3)
		if err != nil || len(terms) != len(ids) || terms["absent"].Entitlement != nil {
			t.Fatalf("%d terms: %v", len(terms), err)
		}
		for i := range 12 {
			want := "b0"
			if i == 3 {
				want = fmt.Sprint("b", round)
			}
			if e := terms[metering.EntitlementID(fmt.Sprint("e", i))].Entitlement; e == nil || string(e.BuyerID) != want {
				t.Errorf("round %d: e%d is %+v", round, i, e)
			}
		}
	}
}

func TestTermsOf_Units(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	storeEntitlement(t, tbl, "e1", `{"partner":"AWS","buyerID":"b"}`)
	storeEntitlement(t, tbl, "e2", `{"partner":"AWS","buyerID":"b"}`)
	ctx, consumed := table.CountUnits(t.Context())
	if _, err := tbl.TermsOf(ctx, "o1", []metering.EntitlementID{"e1", "e2"}, false); err != nil {
		t.Fatal(err)
	}
	if read, write := consumed(); read != 2 || write != 0 {
		t.Errorf("%v read and %v write units", read, write)
	}
}
