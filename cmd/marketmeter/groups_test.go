package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
)

// onTable runs a command of the program on the table. It returns the exit status and the output,
// without the line on standard error that names the table.
func onTable(t *testing.T, tableName, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	environment := map[string]string{"DYNAMODB_ENDPOINT": os.Getenv("DYNAMODB_ENDPOINT"), "TABLE_NAME": tableName}
	var out, errs bytes.Buffer
	getenv := func(name string) string { return environment[name] }
	status = run(t.Context(), args, getenv, strings.NewReader(stdin), &out, &errs)
	acts := "table " + tableName + " at " + os.Getenv("DYNAMODB_ENDPOINT") + ", from DYNAMODB_ENDPOINT\n"
	return status, out.String(), strings.TrimPrefix(errs.String(), acts)
}

// listedPages returns all pages of the list operation for all of time, one a line, with the members
// of each object sorted by name.
func listedPages(t *testing.T, tbl *table.Table, org string, limit int) string {
	t.Helper()
	api := httpapi.API{
		Table: tbl, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Authenticate: func(*http.Request) (auth.Principal, error) {
			return auth.Principal{Organization: metering.OrgID(org), KeyID: "test", Scopes: auth.Read}, nil
		},
		CountUnits: table.CountUnits,
	}
	handler := api.Handler("list")
	nextOffset := regexp.MustCompile(`"nextOffset":(\d+)}$`)
	var pages strings.Builder
	for offset := "0"; ; {
		path := fmt.Sprintf("/org/%s/usageRecordGroup?startDate=0000-01-01&endDate=9999-12-31&limit=%d&offset=%s", url.PathEscape(org), limit, offset)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		next := nextOffset.FindStringSubmatch(answer.Body.String())
		if answer.Code != 200 || next == nil {
			t.Fatalf("%s: %d %s", path, answer.Code, answer.Body)
		}
		var page any
		decoder := json.NewDecoder(answer.Body)
		decoder.UseNumber()
		if err := decoder.Decode(&page); err != nil {
			t.Fatal(err)
		}
		sorted, err := json.Marshal(page)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&pages, "%s\n", sorted)
		if offset = next[1]; offset == "0" {
			return pages.String()
		}
	}
}
