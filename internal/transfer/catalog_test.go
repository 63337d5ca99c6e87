package transfer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

const catalogTime = "2026-03-01T12:00:00.000Z"

// licensed returns the line of an entitlement with the marketplace identifiers of that licence.
func licensed(id, license string) string {
	return fmt.Sprintf(`{"buyerID":"b","creationTime":%q,"id":%q,"lastUpdateTime":%[1]q,"marketplace":{"customerAWSAccountID":"111122223333",`+
		`"licenseArn":"arn:aws:license-manager::294406891311:license:%[3]s"},"organizationID":"o1","partner":"AWS","status":"ACTIVE"}`+"\n", catalogTime, id, license)
}

// metric returns the line of an ACTIVE metric.
func metric(id, name string) string {
	return fmt.Sprintf(`{"aggregationType":"SUM","creationTime":%q,"id":%q,"lastUpdateTime":%[1]q,"name":%[3]q,"organizationId":"o1","status":"ACTIVE"}`+"\n", catalogTime, id, name)
}

// catalogLine returns a line of the kind. The one with the same name owns the same identifiers, or
// the same name.
func catalogLine(kind Kind, id, name string) string {
	if kind == Entitlements {
		return licensed(id, name)
	}
	return metric(id, name)
}

func exportedCatalog(t *testing.T, tbl *table.Table, org metering.OrgID, kind Kind) string {
	t.Helper()
	var out strings.Builder
	if err := Export(t.Context(), tbl, org, ExportOptions{Kind: kind}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Of the lines with one id the first is stored, and of those with one identity or name too: the
// others are skipped, and refused.
func TestImportCatalog_StoresTheFirstOfLinesThatExcludeEachOther(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{Entitlements, Metrics} {
		tbl := tabletest.New(t)
		var lines, want strings.Builder
		for n := range 120 {
			line := catalogLine(kind, fmt.Sprintf("i%02d", n%40), fmt.Sprint("n", n%20))
			lines.WriteString(line)
			if n < 20 {
				want.WriteString(line)
			}
		}
		var refused []int
		counts, err := Import(t.Context(), tbl, "o1", strings.NewReader(lines.String()), ImportOptions{Kind: kind, Refused: func(line int, err error) {
			refused = append(refused, line)
			if metering.CodeOf(err) != metering.Conflict {
				t.Errorf("line %d: %v", line, err)
			}
		}})
		// i20 to i39 have the names of i00 to i19, each time.
		if wanted := (Counts{Imported: 20, Skipped: 40, Refused: 60}); err != nil || counts != wanted {
			t.Errorf("%s: %v, %v; want %v", kind, counts, err, wanted)
		}
		if got := exportedCatalog(t, tbl, "o1", kind); got != want.String() {
			t.Errorf("%s: exported\n%s\nwant\n%s", kind, got, want.String())
		}
		if !slices.IsSorted(refused) {
			t.Errorf("%s: refused %d, in another order than the lines", kind, refused)
		}
	}
}

// A fault hits one attempt of any request of an import, all attempts of it, or those of the
// next too. What is counted as imported is stored. After the same import again all is stored, and
// its identifiers and names are owned: another object with them is refused.
func TestImportCatalog_EachFaultLosesNothing(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	var orgs atomic.Int64
	var all errgroup.Group
	all.SetLimit(16)
	for _, kind := range []Kind{Entitlements, Metrics} {
		lines := catalogLine(kind, "a", "1") + catalogLine(kind, "b", "2")
		rival := catalogLine(kind, "c", "1")
		for point := range 2 {
			for at := range len(tabletest.Kinds) + 1 {
				for _, attempts := range []int{1, 6, 20} { // the client makes 6
					org := metering.OrgID(fmt.Sprint("o", orgs.Add(1)))
					all.Go(func() error {
						var late tabletest.Late
						fault := append(slices.Clone(tabletest.Kinds), late.Kind())[at]
						faults := tabletest.Planned(func(attempt int, request *http.Request) tabletest.Fault {
							if point <= attempt && attempt < point+attempts {
								return fault.Of(request)
							}
							return nil
						})
						run := func(ctx context.Context, tbl *table.Table, lines string) (Counts, error) {
							return Import(ctx, tbl, org, strings.NewReader(lines), ImportOptions{Kind: kind, RewriteOrg: true})
						}
						where := fmt.Sprintf("%s, from request %d on %s, %d times", kind, point, fault.Name, attempts)
						counts, err := run(t.Context(), table.New(tabletest.NewClient(faults), name), lines)
						if err != nil && metering.CodeOf(err) != metering.Unavailable {
							t.Errorf("%s: %v", where, err)
						}
						if stored := strings.Count(exportedCatalog(t, tbl, org, kind), "\n"); counts.Imported > stored || counts.Refused > 0 || err == nil && (counts.Imported != 2 || stored != 2) {
							t.Errorf("%s: %v, %v, and %d are stored", where, counts, err, stored)
						}
						if _, err := late.Arrive(); err != nil {
							return err
						}
						again, err := run(t.Context(), tbl, lines)
						if err != nil || again.Imported+again.Skipped != 2 || again.Refused > 0 {
							t.Errorf("%s: again: %v, %v", where, again, err)
						}
						if got := exportedCatalog(t, tbl, org, kind); got != strings.ReplaceAll(lines, `"o1"`, fmt.Sprintf("%q", org)) {
							t.Errorf("%s: exported\n%s", where, got)
						}
						if counts, err := run(t.Context(), tbl, rival); err != nil || counts.Refused != 1 {
							t.Errorf("%s: a rival: %v, %v; want it refused", where, counts, err)
						}
						return nil
					})
				}
			}
		}
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

// An import waits while the table is unavailable; what an attempt has stored whose response was
// lost counts as imported.
func TestImportCatalog_CountsWhatALostResponseHasStored(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	for _, kind := range []Kind{Entitlements, Metrics} {
		faulty, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{tabletest.Lose}, 7)...)
		counts, err := Import(t.Context(), table.New(faulty, name), metering.OrgID("lost-"+kind), strings.NewReader(catalogLine(kind, "a", "1")),
			ImportOptions{Kind: kind, RewriteOrg: true, Patience: time.Minute})
		if want := (Counts{Imported: 1}); err != nil || counts != want {
			t.Errorf("%s: %v, %v; want %v", kind, counts, err, want)
		}
	}
}

// An entitlement that was imported as DELETED owns no identifiers. A PUT that revives it takes
// them.
func TestImportCatalog_DeletedEntitlementIsRevived(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	deleted := strings.Replace(licensed("e1", "1"), "ACTIVE", "DELETED", 1)
	if counts, err := Import(t.Context(), tbl, "o1", strings.NewReader(deleted), ImportOptions{Kind: Entitlements}); err != nil || counts.Imported != 1 {
		t.Fatal(counts, err)
	}
	stored, err := tbl.Entitlement(t.Context(), "o1", "e1")
	e := stored.Value
	if err != nil || e.Status != metering.EntitlementDeleted {
		t.Fatal(e.Status, err)
	}
	e.Status = metering.EntitlementActive
	change, err := metering.NewEntitlementChange("o1", "e1", &e, metering.Conditions{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, written, err := tbl.PutEntitlement(t.Context(), &change); err != nil || !written {
		t.Fatal(written, err)
	}
	if counts, err := Import(t.Context(), tbl, "o1", strings.NewReader(licensed("e2", "1")), ImportOptions{Kind: Entitlements}); err != nil || counts.Refused != 1 {
		t.Errorf("another with its identifiers: %v, %v; want it refused", counts, err)
	}
}

// An export reads every page of DynamoDB.
func TestExport_ReadsEveryPageOfTheCatalog(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var lines strings.Builder
	for n := range 80 { // 2.4 MB
		line := fmt.Sprintf(`{"aggregationType":"SUM","creationTime":%q,"description":%q,"id":"bm-%02d","lastUpdateTime":%[1]q,"name":"n%[3]d","organizationId":"o1","status":"ACTIVE"}`,
			catalogTime, strings.Repeat("x", 30_000), n)
		lines.WriteString(line + "\n")
	}
	if counts, err := Import(t.Context(), tbl, "o1", strings.NewReader(lines.String()), ImportOptions{Kind: Metrics}); err != nil || counts.Imported != 80 {
		t.Fatal(counts, err)
	}
	if exportedCatalog(t, tbl, "o1", Metrics) != lines.String() {
		t.Error("the export is not the 80 metrics that were imported")
	}
	err := Export(t.Context(), tbl, "o1", ExportOptions{Kind: Metrics}, &closedPipe{10_000}, io.Discard)
	if err == nil || err.Error() != "what was written is not all: write |1: broken pipe" {
		t.Errorf("into a pipe that closes: %v", err)
	}
}
