package reporting_test

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// refused is the world's table, which refuses each update that makes the group REPORT_PENDING as
// DynamoDB refuses one that makes an item too large.
func refused(w *worldtest.World, id metering.GroupID) *table.Table {
	return table.New(tabletest.NewClient(tabletest.Planned(func(_ int, request *http.Request) tabletest.Fault {
		sent, err := io.ReadAll(request.Body)
		request.Body = io.NopCloser(bytes.NewReader(sent))
		if err != nil || !strings.HasSuffix(request.Header.Get("X-Amz-Target"), ".UpdateItem") ||
			!bytes.Contains(sent, []byte("GROUP#"+string(id))) || !bytes.Contains(sent, []byte("REPORT_PENDING")) {
			return nil
		}
		return tabletest.TooLarge
	})), w.TableName)
}

// The others of its hour are billed. It waits for the next hours, and is an event in each, until it
// fails at its deadline.
func TestWorker_LeavesOutAGroupThatIsTooLarge(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	large, other := w.Report(worldtest.OnAWS, rt.Hour, "d0 1"), w.Report(worldtest.OnAWS, rt.Hour, "d0 2")
	tbl := refused(w, large)
	for round, at := range []time.Time{closed, closed.Add(time.Hour), closed.Add(2 * time.Hour)} {
		w.Set(at)
		workBy(t, w, tbl)
		want(t, "groups", w.Status(large)+" "+w.Status(other), "CREATED REPORTED")
		want(t, "hour", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "SETTLED ACCEPTED RESPONSE")
		if n := w.Log.Count(reporting.EventUnclaimable); n <= round {
			t.Errorf("round %d: %d events", round, n)
		}
	}
	if lines := w.Log.Lines(); !strings.Contains(lines, "group="+string(large)) || strings.Contains(lines, "group="+string(other)) {
		t.Errorf("the group is not named:\n%s", lines)
	}
	w.Set(rt.Hour.Add(25 * time.Hour)) // for an hour, it moves on
	workBy(t, w, tbl)
	want(t, "after its deadline", w.Status(large), "REPORT_FAILED EXPIRED")
	events := w.Log.Count(reporting.EventUnclaimable)
	w.Set(rt.Hour.Add(30 * time.Hour))
	workBy(t, w, tbl)
	want(t, "events after it", strconv.Itoa(w.Log.Count(reporting.EventUnclaimable)), strconv.Itoa(events))
	want(t, "billed", w.Billed(), "d0=2")
}

// What the index lists and does not wait is removed. What this version does not know is left alone,
// whichever worker finds it, and the rest is billed.
func TestWorker_CountsWhatDoesNotWait(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	deleted, parked, other := w.Report(worldtest.OnAWS, rt.Hour, "d0 1"), w.Report(worldtest.OnAWS, rt.Hour, "d0 2"), w.Report(worldtest.OnAWS, rt.Hour, "d0 4")
	strange := w.Report(worldtest.OnAzure, rt.Hour, "d0 8")
	w.SetText("ORG#acme", "GROUP#"+string(deleted), "status", "DELETED")
	w.SetText("ORG#acme", "GROUP#"+string(parked), "status", "PARKED")
	w.SetText("ORG#acme", "GROUP#"+string(strange), "_due", "2026-01-01T00#new")
	w.Set(closed)
	w.Work()
	want(t, "stale", strconv.Itoa(w.Log.Count(reporting.EventStaleWork)), "1")
	if n := w.Log.Count(reporting.EventUnknownVersion); n < 2 {
		t.Errorf("%d unknown, want the group and the entry", n)
	}
	for _, named := range []string{"group=" + string(parked), "sk=GROUP#" + string(strange)} {
		if !strings.Contains(w.Log.Lines(), named) {
			t.Errorf("%s is not in the log", named)
		}
	}
	want(t, "other", w.Status(other), "REPORTED")
	want(t, "billed", w.Billed(), "d0=4")
	before := w.Log.Count(reporting.EventUnknownVersion)
	for name, run := range map[string]func(*reporting.Worker) error{
		"schedule": func(worker *reporting.Worker) error { _, err := worker.Schedule(t.Context()); return err },
		"plan":     func(worker *reporting.Worker) error { return worker.Plan(t.Context(), awsHour) },
	} {
		if err := run(w.Worker(w.Table)); err != nil {
			t.Fatal(err)
		}
		after := w.Log.Count(reporting.EventUnknownVersion)
		if after == before {
			t.Errorf("%s counts nothing", name)
		}
		before = after
	}
	w.SetText("ORG#acme", "GROUP#"+string(strange), "_work", "DAILY#0")
	if err := w.Worker(w.Table).Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.Log.Count(reporting.EventUnknownVersion) == before {
		t.Error("reconcile counts nothing")
	}
	next := rt.Hour.Add(time.Hour)
	w.Report(worldtest.OnAzure, next, "d0 16")
	w.Set(closed.Add(time.Hour))
	if err := w.Worker(w.Table).Plan(t.Context(), reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAzure, Hour: next}); err != nil {
		t.Fatal(err)
	}
	lane := w.Hour(worldtest.OnAzure, next).Sealed.Lane
	w.SetText("ORG#acme#BILL#ent-azure", "HOUR#"+next.Format("2006-01-02T15"), "_due", lane+"#"+metering.FormatTime(next)+"#new")
	before = w.Log.Count(reporting.EventUnknownVersion)
	if err := w.Worker(w.Table).Submit(t.Context(), lane); err != nil {
		t.Fatal(err)
	}
	if w.Log.Count(reporting.EventUnknownVersion) == before {
		t.Error("submit counts nothing")
	}
	want(t, "billed in the end", w.Billed(), "d0=4")
}
