package table_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// The page consists of plain values: it is the zero page if no group can match, and if the list has
// no groups.
func TestList_EmptyPageIsTheZeroPage(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	possible := listing(now, 2)
	impossible := possible
	impossible.Filter.MetaInfo = map[string]any{"lagoAmount": metering.NoNumber{}}
	for name, request := range map[string]metering.ListRequest{"possible": possible, "impossible": impossible} {
		if groups, page, laterBy, err := list(t, tbl, "o1", request); err != nil || groups != "" || page != (metering.GroupPage{}) || laterBy != 0 {
			t.Errorf("%s: %q, %+v, %v, %v", name, groups, page, laterBy, err)
		}
	}
}

// The checkpoint is stored while the page is encoded: here encode waits until the write is sent,
// and the write waits until encode has returned.
func TestList_StoresTheCheckpointWhileThePageIsEncoded(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	for _, id := range []string{"g1", "g2", "g3"} {
		put(t, table.New(client, name), group(id, metering.StatusCreated))
	}
	sent, encoded := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	waits := func(send func() (*http.Response, error)) (*http.Response, error) {
		close(sent)
		select {
		case <-encoded:
			return send()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	tbl := table.New(tabletest.NewClient(tabletest.Planned(func(_ int, r *http.Request) tabletest.Fault {
		if tabletest.Action(r) == "PutItem" {
			return waits
		}
		return nil
	})), name)
	_, err := tbl.List(ctx, "o1", listing(now, 2), nil, func([]byte, metering.GroupPage) error {
		defer close(encoded)
		select {
		case <-sent:
			return nil
		case <-ctx.Done():
			return errors.New("the checkpoint is not sent while the page is encoded")
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// List returns the error of encode, whether or not the checkpoint is stored.
func TestList_ReturnsTheFailureOfEncode(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	for _, id := range []string{"g1", "g2", "g3"} {
		put(t, tbl, group(id, metering.StatusCreated))
	}
	for _, limit := range []int{2, 3} { // with and without a next page
		_, err := tbl.List(t.Context(), "o1", listing(now, limit), nil, func([]byte, metering.GroupPage) error { return io.ErrShortWrite })
		if !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

// List ignores a checkpoint whose key this version does not write and sorts before an offset that
// the checkpoint is after.
func TestList_PassesOverACheckpointOfAnotherKey(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for i, id := range []string{"g0", "g1", "g2", "g3", "g4"} {
		g := group(id, metering.StatusCreated)
		g.CreationTime = now.Add(-time.Duration(i) * time.Minute)
		put(t, tbl, g)
	}
	request := listing(now, 3)
	if _, page, _, err := list(t, tbl, "o1", request); err != nil || page.NextOffset != 3 {
		t.Fatal(page, err)
	}
	items, err := client.Scan(t.Context(), &dynamodb.ScanInput{TableName: &name})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(items.Items, func(item map[string]types.AttributeValue) bool {
		sk, ok := item["SK"].(*types.AttributeValueMemberS)
		return ok && sk.Value == "0000000003"
	})
	if i < 0 {
		t.Fatal("there is no checkpoint")
	}
	items.Items[i]["SK"] = &types.AttributeValueMemberS{Value: "00000000003"}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: items.Items[i]}); err != nil {
		t.Fatal(err)
	}
	request.Offset, request.Limit = 1, 1
	groups, page, _, err := list(t, tbl, "o1", request)
	if err != nil || page.NextOffset != 2 || !strings.Contains(groups, `"id":"g1"`) {
		t.Errorf("%s, %+v, %v", groups, page, err)
	}
}
