package table_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func wantGate(t *testing.T, tbl *table.Table, parts ...string) {
	t.Helper()
	closed, err := tbl.Gate(t.Context())
	if err != nil || len(parts) == 0 && closed != "" || len(parts) > 0 && closed == "" {
		t.Errorf("the gate is %q: %v", closed, err)
	}
	for _, part := range parts {
		if !strings.Contains(closed, part) {
			t.Errorf("%q does not have %q", closed, part)
		}
	}
}

func TestGate_IsOpenUntilPaused(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	wantGate(t, tbl)
	pause := func(by string, at time.Time) {
		t.Helper()
		if err := tbl.Pause(t.Context(), by, at); err != nil {
			t.Fatal(err)
		}
	}
	resume := func() {
		t.Helper()
		if err := tbl.Resume(t.Context(), "cleo", now); err != nil {
			t.Fatal(err)
		}
	}
	resume() // nothing is paused
	wantGate(t, tbl)
	pause("ann", now)
	pause("bob", now.Add(time.Hour))
	wantGate(t, tbl, "paused", "ann", "2026-03-01T12:00:00.000Z")
	resume()
	resume()
	wantGate(t, tbl)
	pause("bob", now.Add(time.Hour))
	wantGate(t, tbl, "paused", "bob", "2026-03-01T13:00:00.000Z")
}

// Before the first worker, a pause is stored without the table's id.
func TestGate_PausedBeforeTheFirstWorker(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	if err := tbl.Pause(t.Context(), "ann", now); err != nil {
		t.Fatal(err)
	}
	wantGate(t, tbl, "paused", "ann")
	if err := tbl.Resume(t.Context(), "ann", now); err != nil {
		t.Fatal(err)
	}
	wantGate(t, tbl)
}

// A table that was restored has the items of another table.
func TestGate_OfARestoredTable(t *testing.T) {
	t.Parallel()
	for name, item := range map[string]map[string]types.AttributeValue{
		"":           {},
		"and paused": {"pausedBy": text("ann"), "pausedTime": text("2026-03-01T12:00:00.000Z")},
	} {
		client, restoredName := tabletest.Client(t)
		item["PK"], item["SK"], item["tableID"] = text("REPORTING"), text("REPORTING"), text("id-of-another")
		if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &restoredName, Item: item}); err != nil {
			t.Fatal(err)
		}
		tbl := table.New(client, restoredName)
		wantGate(t, tbl, "restored", "id-of-another")
		wantCode(t, tbl.Resume(t.Context(), "ann", now), metering.Conflict)
		wantGate(t, tbl, "restored", "id-of-another")
		if t.Failed() {
			t.Log(name)
		}
	}
}

// Many first workers agree. DynamoDB Local gives tables no id: its time of creation is one.
func TestGate_FirstWorkers(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			closed, err := table.New(client, name).Gate(t.Context())
			if closed != "" || err != nil {
				t.Errorf("%q, %v", closed, err)
			}
		})
	}
	workers.Wait()
	described, err := client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name})
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &name, Key: map[string]types.AttributeValue{"PK": text("REPORTING"), "SK": text("REPORTING")}})
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "of "+metering.FormatTime(aws.ToTime(described.Table.CreationDateTime)), out.Item["tableID"].(*types.AttributeValueMemberS).Value)
}

// A gate that can't be read is not open.
func TestGate_UnderFaults(t *testing.T) {
	t.Parallel()
	for request := range 3 { // DescribeTable, GetItem, and UpdateItem by the first worker
		for _, fault := range []tabletest.Fault{tabletest.Lose, tabletest.Drop, tabletest.Throttle, tabletest.Flip} {
			_, name := tabletest.Client(t)
			faulty := func(times int) *table.Table {
				client, _ := tabletest.NewFaults(slices.Concat(slices.Repeat([]tabletest.Fault{tabletest.Pass}, request), slices.Repeat([]tabletest.Fault{fault}, times))...)
				return table.New(client, name)
			}
			_, err := faulty(100).Gate(t.Context())
			wantUnavailable(t, err)
			wantGate(t, faulty(1))
		}
	}
}

func TestPauseAndResume_UnderFaults(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	for range 3 {
		client, _ := tabletest.NewFaults(tabletest.Lose, tabletest.Throttle)
		tbl := table.New(client, name)
		if err := tbl.Pause(t.Context(), "ann", now); err != nil {
			t.Fatal(err)
		}
		wantGate(t, tbl, "ann")
		client, _ = tabletest.NewFaults(tabletest.Lose, tabletest.Lose)
		tbl = table.New(client, name)
		if err := tbl.Resume(t.Context(), "ann", now); err != nil {
			t.Fatal(err)
		}
		wantGate(t, tbl)
	}
}

// A process that outlives its table notices that the table was restored under the same name.
func TestGate_ReadsTheTableIDAgain(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	requests := func() (actions []string) {
		ctx, sent := tabletest.Record(t.Context())
		if closed, err := tbl.Gate(ctx); closed != "" || err != nil {
			t.Errorf("%q, %v", closed, err)
		}
		for _, r := range sent() {
			actions = append(actions, r.Action)
		}
		return actions
	}
	wantSame(t, []string{"DescribeTable", "GetItem", "UpdateItem"}, requests())
	wantSame(t, []string{"GetItem"}, requests())
	tbl.AgeTableID()
	wantSame(t, []string{"DescribeTable", "GetItem"}, requests())
}
