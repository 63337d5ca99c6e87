package apitest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// soldAs is an entitlement of AWS with the dimensions cpu, of the unit price 0.5, and ram, as a
// client sends it.
func soldAs(id string, members ...doc) doc {
	sum := sha256.Sum256([]byte(id))
	e := doc{
		"partner": "AWS", "buyerID": "buyer-of-" + id, "productID": "product-1",
		"info": doc{"currency": "USD", "dimensions": []any{doc{"key": "cpu", "name": "CPU hours", "rate": 0.5}, doc{"key": "ram"}}},
		"marketplace": doc{
			"customerAWSAccountID": fmt.Sprintf("%012d", uint64(sum[0])<<32|uint64(sum[1])<<24|uint64(sum[2])<<16|uint64(sum[3])<<8|uint64(sum[4])),
			"licenseArn":           fmt.Sprintf("arn:aws:license-manager:us-east-1:123456789012:license:l-%x", sum[:8]),
		},
	}
	for _, m := range members {
		maps.Copy(e, m)
	}
	return e
}

// sold is an operator's change of an entitlement.
func sold(id string, members ...doc) request {
	return request{operator: func(ctx context.Context, tbl *table.Table, org string) error {
		body, err := json.Marshal(soldAs(id, members...))
		if err != nil {
			return err
		}
		sent, err := wire.DecodeEntitlement(body)
		if err != nil {
			return err
		}
		change, err := metering.NewEntitlementChange(metering.OrgID(org), metering.EntitlementID(id), &sent, metering.Conditions{}, now)
		if err == nil {
			_, _, err = tbl.PutEntitlement(ctx, &change)
		}
		return err
	}}
}

func reportPath(org, entitlement string) string {
	return orgPath(org) + "/entitlement/" + url.PathEscape(entitlement) + "/usageRecordGroup"
}

func (a *api) report(t testing.TB, org, entitlement, body string, headers ...string) answer {
	t.Helper()
	return a.post(t, reportPath(org, entitlement), body, headers...)
}

func (a *api) batch(t testing.TB, org, body string, headers ...string) answer {
	t.Helper()
	return a.post(t, orgPath(org)+"/batchCreateUsageRecordGroups", body, headers...)
}

func (a *api) retry(t testing.TB, org, id, query string, headers ...string) answer {
	t.Helper()
	r := request{method: "POST", path: groupPath(org, id) + "/retry", query: query, headers: map[string]string{}}
	for i := 0; i < len(headers); i += 2 {
		r.headers[headers[i]] = headers[i+1]
	}
	return a.do(t, r)
}

func (a *api) post(t testing.TB, path, body string, headers ...string) answer {
	t.Helper()
	r := request{method: "POST", path: path, body: body, headers: map[string]string{"Content-Type": "application/json"}}
	for i := 0; i < len(headers); i += 2 {
		r.headers[headers[i]] = headers[i+1]
	}
	return a.do(t, r)
}

// stored returns the group as GET and the list return it.
func (a *api) stored(t testing.TB, org, id string) doc {
	t.Helper()
	got := a.get(t, groupPath(org, id), "")
	want(t, got, http.StatusOK)
	g := asGroup(t, parse(t, got.body))
	listed := a.listAll(t, org, nil)
	if i := slices.Index(idsOf(listed), id); i < 0 {
		t.Errorf("group %q is not listed", id)
	} else {
		wantSame(t, g, listed[i])
	}
	return g
}

// codes are the codes of the group's problems.
func codes(g doc) (all []string) {
	problems, _ := g["problems"].([]any)
	for _, p := range problems {
		all = append(all, p.(doc)["code"].(string))
	}
	return all
}

// removeGroup removes a group, as if it had never been stored.
func (a *api) removeGroup(t testing.TB, org, id string) {
	t.Helper()
	_, err := a.client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &a.tableName, Key: itemKeyOf("ORG#"+org, "GROUP#"+id)})
	if err != nil {
		t.Fatal(err)
	}
}

// work returns the _due of the group, or "" if it does not wait.
func (a *api) work(t testing.TB, org, id string) string {
	t.Helper()
	item := a.storedItem(t, "ORG#"+org, "GROUP#"+id)
	due, _ := item["_due"].(*types.AttributeValueMemberS)
	shard, _ := item["_work"].(*types.AttributeValueMemberS)
	if (due == nil) != (shard == nil) || shard != nil && !strings.HasPrefix(shard.Value, "WORK#") {
		t.Errorf("group %s has _due %v and _work %v", id, item["_due"], item["_work"])
	}
	if due == nil {
		return ""
	}
	return due.Value
}

func TestReport_StoresWhatTheEntitlementMakesOfIt(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		want(t, a.send(t, "PUT", configPath("acme"), `{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":true,
			"dimensionMapping":{"vcpu":{"dimensionKey":"cpu","convertionMultiplier":0.25}}}]}`), http.StatusOK)

		got := a.report(t, "acme", "e1", `{"records":{"vcpu":10,"ram":0.1},"timestamp":"2024-07-29T15:30:00Z","metaInfo":{"stripeInvoiceID":"i1"}}`)

		want(t, got, http.StatusOK)
		g := asGroup(t, parse(t, got.body))
		id, _ := g["id"].(string)
		if len(id) != 36 || id[14] != '7' {
			t.Errorf("the id %q is no UUIDv7", id)
		}
		wantSame(t, doc{
			"id": id, "organizationID": "acme", "buyerID": "buyer-of-e1", "entitlementID": "e1", "partner": "AWS", "status": "CREATED",
			"records": doc{"cpu": parse(t, "2.5"), "ram": parse(t, "0.1")}, "serialID": exact("1"), "usageRecordReportID": "",
			"metaInfo": doc{
				"source": "API", "timestamp": "2024-07-29T15:30:00.000Z", "stripeInvoiceID": "i1",
				"originRecords": doc{"vcpu": exact("10"), "ram": parse(t, "0.1")},
			},
			"reportBy": "2024-07-30T15:00:00.000Z", "creationTime": a.wantNow(t, g["creationTime"]), "lastUpdateTime": a.wantNow(t, g["lastUpdateTime"]),
		}, g)
		wantSame(t, g, a.stored(t, "acme", id))
		wantSame(t, []string{id}, idsOf(a.listAll(t, "acme", url.Values{"productId": {"product-1"}})))
		if due := a.work(t, "acme", id); !strings.HasPrefix(due, "2024-07-29T15#acme#e1#") {
			t.Errorf("the work is due as %q", due)
		}
		if size := sizeOf(a.storedItem(t, "ORG#acme", "GROUP#"+id)); size > 1024 {
			t.Errorf("an ordinary group has %d bytes as stored: it costs twice the write units", size)
		}
		// The usage happened now, if the client does not say when.
		g = asGroup(t, parse(t, a.report(t, "acme", "e1", `{"records":{"cpu":1}}`).body))
		wantSame(t, g["creationTime"], g["metaInfo"].(doc)["timestamp"])
		wantSame(t, exact("2"), g["serialID"])
	})
}

// sizeOf is about the size of an item of a group, as DynamoDB counts it.
func sizeOf(item map[string]types.AttributeValue) (size int) {
	for name, value := range item {
		size += len(name) + sizeOfValue(value)
	}
	return size
}

func sizeOfValue(value types.AttributeValue) (size int) {
	switch value := value.(type) {
	case *types.AttributeValueMemberS:
		return len(value.Value)
	case *types.AttributeValueMemberN:
		return len(value.Value)/2 + 2
	case *types.AttributeValueMemberB:
		return len(value.Value)
	case *types.AttributeValueMemberM:
		size = 3
		for name, member := range value.Value {
			size += 1 + len(name) + sizeOfValue(member)
		}
		return size
	case *types.AttributeValueMemberL:
		size = 3
		for _, element := range value.Value {
			size += 1 + sizeOfValue(element)
		}
		return size
	default:
		return 1
	}
}

func TestReport_InvalidUsageIsStoredAndRetried(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		got := a.report(t, "acme", "e1", `{"records":{"cpuu":1.5,"ram":2}}`)
		want(t, got, http.StatusOK)
		g := asGroup(t, parse(t, got.body))
		id := g["id"].(string)
		wantSame(t, "INVALID", g["status"])
		wantSame(t, []string{"DIMENSION_UNKNOWN"}, codes(g))
		wantSame(t, "/records/cpuu", g["problems"].([]any)[0].(doc)["path"])
		wantSame(t, doc{"cpuu": parse(t, "1.5"), "ram": exact("2")}, g["metaInfo"].(doc)["originRecords"])
		wantSame(t, g, a.stored(t, "acme", id))
		wantSame(t, "", a.work(t, "acme", id))

		// As long as the cause stays, so does the group; a problem is shown as it is today.
		again := asGroup(t, parse(t, a.retry(t, "acme", id, "").body))
		wantSame(t, []string{"DIMENSION_UNKNOWN"}, codes(again))

		// A change of the config is seen at once, though reports have read the config before.
		want(t, a.send(t, "PATCH", configPath("acme"), `{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":true,
			"dimensionMapping":{"cpuu":{"dimensionKey":"cpu","convertionMultiplier":2}}}]}`), http.StatusOK)
		got = a.retry(t, "acme", id, "creationDate=2024-07-29")
		want(t, got, http.StatusOK)
		g = asGroup(t, parse(t, got.body))
		wantSame(t, "CREATED", g["status"])
		wantSame(t, doc{"cpu": exact("3"), "ram": exact("2")}, g["records"])
		wantSame(t, doc{"cpuu": parse(t, "1.5"), "ram": exact("2")}, g["metaInfo"].(doc)["originRecords"])
		if _, has := g["problems"]; has {
			t.Errorf("a group that is CREATED has problems: %v", g["problems"])
		}
		wantSame(t, g, a.stored(t, "acme", id))
		if due := a.work(t, "acme", id); !strings.HasPrefix(due, "2024-07-29T15#acme#e1#") {
			t.Errorf("the work is due as %q", due)
		}
		// So is one that is reported with the new key.
		wantSame(t, "CREATED", asGroup(t, parse(t, a.report(t, "acme", "e1", `{"records":{"cpuu":1}}`).body))["status"])

		wantError(t, a.retry(t, "acme", id, ""), http.StatusBadRequest, "CREATED")
		wantError(t, a.retry(t, "acme", "absent", ""), http.StatusNotFound, "absent")
		want(t, a.delete(t, "acme", id, ""), http.StatusOK)
		wantSame(t, "", a.work(t, "acme", id))
	})
}

func TestReport_UnreadableUsageIsRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		for body, says := range map[string]string{
			``: "", `[]`: "object", `{}`: "both empty", `{"records":{"cpu":0}}`: "every quantity is 0", `{"records":{"cpu":"1"}}`: "number",
			`{"records":{"cpu":1},"billableRecords":[{"key":"m","quantity":1}]}`: "both filled", `{"record":{"cpu":1}}`: "records",
			`{"records":{"cpu":1},"entitlementID":"e2"}`: "e2", `{"records":{"cpu":1},"organizationID":"other"}`: "other", `{"records":{"cpu":1},"id":"a/b"}`: "a/b",
			`{"records":{"cpu":1},"metaInfo":{"source":"X"}}`: "source", `{"records":{"cpu":12345678901234567890}}`: "19 digits", `{"records":{"":1}}`: "key",
			`{"records":{"cpu":1},"timestamp":"yesterday"}`: "timestamp", `{"records":{"cpu":1},"records":{}}`: "twice", `{"records":{"cpu":1}} {}`: "more follows",
			`{"records":{"cpu":1e1000000000}}`: "19 digits", `{"records":{"\ud800":1}}`: "", strings.Repeat(`{"metaInfo":`, 10_000): "", "null": "",
			`{"records":{"cpu":1},"timestamp":null,"metaInfo":{"lagoAmount":"1"}}`: "lagoAmount",
		} {
			wantError(t, a.report(t, "acme", "e1", body), http.StatusBadRequest, says)
		}
		large := `{"records":{"` + strings.Repeat("x", metering.MaxReportBody) + `":1}}`
		wantError(t, a.report(t, "acme", "e1", large), http.StatusRequestEntityTooLarge)
		for _, absent := range []string{"e2", "E1", strings.Repeat("x", 257)} {
			wantError(t, a.report(t, "acme", absent, `{"records":{"cpu":1}}`), http.StatusNotFound)
		}
		for _, key := range []string{"", "a\tb", "ü", strings.Repeat("k", 256)} {
			wantError(t, a.report(t, "acme", "e1", `{"records":{"cpu":1}}`, "Idempotency-Key", key), http.StatusBadRequest, "Idempotency-Key")
		}
		wantError(t, a.do(t, request{method: "POST", path: reportPath("acme", "e1"), query: "force=true", body: `{"records":{"cpu":1}}`}), http.StatusBadRequest)
		wantSame(t, []doc{}, a.listAll(t, "acme", nil))
	})
}

func TestReport_RulesThatFailMakeItInvalid(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"), sold("suspended", doc{"status": "SUSPENDED"}), sold("bare", doc{"marketplace": doc{}}))
		for _, c := range []struct{ entitlement, body, code string }{
			{"e1", `{"records":{"cpu":-1}}`, "QUANTITY_NEGATIVE"},
			{"e1", `{"records":{"disk":1}}`, "DIMENSION_UNKNOWN"},
			{"e1", `{"records":{"cpu":1},"timestamp":"2024-07-29T15:57:00Z"}`, "IN_THE_FUTURE"},
			{"e1", `{"records":{"cpu":1},"timestamp":"2024-07-28T14:00:00Z"}`, "TOO_OLD"},
			{"e1", `{"billableRecords":[{"key":"m1","quantity":1}]}`, "METRIC_UNKNOWN"},
			{"suspended", `{"records":{"cpu":1}}`, "ENTITLEMENT_NOT_ACTIVE"},
			{"bare", `{"records":{"cpu":1}}`, "ENTITLEMENT_WITHOUT_IDENTIFIERS"},
		} {
			got := a.report(t, "acme", c.entitlement, c.body)
			want(t, got, http.StatusOK)
			g := asGroup(t, parse(t, got.body))
			if g["status"] != "INVALID" || !slices.Contains(codes(g), c.code) {
				t.Errorf("%s of %s is %v with %v, want %s", c.body, c.entitlement, g["status"], codes(g), c.code)
			}
			wantSame(t, g, a.stored(t, "acme", g["id"].(string)))
			// Plain validation refuses exactly what is stored as INVALID.
			var members doc
			if err := json.Unmarshal([]byte(c.body), &members); err != nil {
				t.Fatal(err)
			}
			members["entitlementID"] = c.entitlement
			wantError(t, a.send(t, "POST", validatePath("acme"), toJSON(t, []any{members})), http.StatusInternalServerError)
		}
		// SkipValidation skips what the entitlement says, and what can't be converted stays
		// INVALID.
		for body, status := range map[string]string{
			`{"records":{"disk":1},"timestamp":"2020-01-01T00:00:00Z","metaInfo":{"SkipValidation":true}}`: "CREATED",
			`{"records":{"cpu":-1},"metaInfo":{"SkipValidation":true}}`:                                    "INVALID",
		} {
			g := asGroup(t, parse(t, a.report(t, "acme", "suspended", body).body))
			wantSame(t, status, g["status"])
			wantSame(t, true, g["metaInfo"].(doc)["SkipValidation"])
		}
	})
}

func TestReport_ManyProblemsAreStored(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		records := doc{}
		for i := range 2000 {
			records[fmt.Sprintf("unknown-%04d", i)] = 1
		}
		got := a.report(t, "acme", "e1", toJSON(t, doc{"records": records}))
		want(t, got, http.StatusOK)
		g := asGroup(t, parse(t, got.body))
		wantSame(t, 2000, len(g["metaInfo"].(doc)["originRecords"].(doc)))
		problems := g["problems"].([]any)
		if size := len(toJSON(t, problems)); len(problems) < 5 || size > metering.MaxStoredProblems+1000 {
			t.Errorf("%d problems in %d bytes", len(problems), size)
		}
		if last := problems[len(problems)-1].(doc)["message"].(string); !strings.Contains(last, "more problems") {
			t.Errorf("the last problem does not say that there are more: %s", last)
		}
	})
}

func TestReport_IDOfTheClient(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"), sold("e2"))
		const first = `{"id":"u1","records":{"cpu":1.50,"ram":2},"timestamp":"2024-07-29T15:00:00Z","metaInfo":{"lagoAmount":3.0,"source":"LAGO"}}`
		want(t, a.report(t, "acme", "e1", first), http.StatusOK)
		for _, same := range []string{
			first,
			`{"records":{"ram":2.0,"cpu":15e-1},"id":"u1"}`,
			`{"id":"u1","entitlementID":"e1","organizationID":"acme","records":{"cpu":1.5,"ram":2},"metaInfo":{"timestamp":"2024-07-29T17:00:00+02:00","lagoAmount":3}}`,
		} {
			wantError(t, a.report(t, "acme", "e1", same), http.StatusConflict, "u1", "same content")
		}
		for _, other := range []string{
			`{"id":"u1","records":{"cpu":1.5}}`, `{"id":"u1","records":{"cpu":1.5,"ram":3}}`, `{"id":"u1","records":{"cpu":1.5,"ram":2,"x":1}}`,
			`{"id":"u1","records":{"cpu":1.5,"ram":2},"timestamp":"2024-07-29T15:00:01Z"}`, `{"id":"u1","records":{"cpu":1.5,"ram":2},"metaInfo":{"lagoAmount":4}}`,
			`{"id":"u1","records":{"cpu":1.5,"ram":2},"metaInfo":{"source":"ORB"}}`, `{"id":"u1","records":{"cpu":1.5,"ram":2},"metaInfo":{"SkipValidation":true}}`,
			`{"id":"u1","records":{"cpu":1.5,"ram":2},"metaInfo":{"stripeInvoiceID":"i"}}`, `{"id":"u1","billableRecords":[{"key":"m","quantity":1}]}`,
		} {
			wantError(t, a.report(t, "acme", "e1", other), http.StatusConflict, "u1", "other content")
		}
		wantError(t, a.report(t, "acme", "e2", first), http.StatusConflict, "u1", "other content")
		want(t, a.delete(t, "acme", "u1", ""), http.StatusOK)
		wantError(t, a.report(t, "acme", "e1", first), http.StatusConflict, "u1") // the id stays taken
		wantSame(t, []string{"u1"}, idsOf(a.listAll(t, "acme", nil)))
	})
}

func TestReport_SkipValidationSentAsFalseIsContent(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		want(t, a.report(t, "acme", "e1", `{"id":"u1","records":{"cpu":1},"metaInfo":{"SkipValidation":true}}`), http.StatusOK)
		wantError(t, a.report(t, "acme", "e1", `{"id":"u1","records":{"cpu":1}}`), http.StatusConflict, "same content")
		wantError(t, a.report(t, "acme", "e1", `{"id":"u1","records":{"cpu":1},"metaInfo":{"SkipValidation":false}}`), http.StatusConflict, "other content")
	})
}

func TestReport_IdempotencyKey(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"), sold("e2"))
		const body = `{"records":{"cpu":1}}`
		key := []string{"Idempotency-Key", "k, 1"}
		first := a.report(t, "acme", "e1", body, key...)
		want(t, first, http.StatusOK)
		g := asGroup(t, parse(t, first.body))
		id := g["id"].(string)
		if len(id) != 36 || id[14] != '5' {
			t.Errorf("the id %q is no UUIDv5", id)
		}
		again := a.report(t, "acme", "e1", body, key...)
		want(t, again, http.StatusOK)
		wantSame(t, g, asGroup(t, parse(t, again.body)))

		for _, other := range []answer{
			a.report(t, "acme", "e1", `{"records":{"cpu":1} }`, key...),
			a.report(t, "acme", "e2", body, key...),
			a.batch(t, "acme", `[{"entitlementID":"e1","records":{"cpu":1}}]`, key...),
		} {
			wantError(t, other, http.StatusConflict, "Idempotency-Key")
		}
		wantError(t, a.report(t, "acme", "e1", `{"id":"u1","records":{"cpu":1}}`, key...), http.StatusBadRequest, "Idempotency-Key")
		// Only what was stored is remembered.
		wantError(t, a.report(t, "acme", "e9", body, "Idempotency-Key", "k2"), http.StatusNotFound)
		a.give(t, "acme", sold("e9"))
		want(t, a.report(t, "acme", "e9", body, "Idempotency-Key", "k2"), http.StatusOK)

		// Whatever happens in between, the response is the group as it is now.
		want(t, a.delete(t, "acme", id, ""), http.StatusOK)
		again = a.report(t, "acme", "e1", body, key...)
		want(t, again, http.StatusOK)
		wantSame(t, "DELETED", asGroup(t, parse(t, again.body))["status"])
		a.deleteEntitlement(t, "acme", "e1")
		a.clock.set(now.Add(5 * time.Second))
		wantError(t, a.report(t, "acme", "e1", body), http.StatusNotFound)
		again = a.report(t, "acme", "e1", body, key...)
		want(t, again, http.StatusOK)
		wantSame(t, id, asGroup(t, parse(t, again.body))["id"])
		// Another organization's key is another key.
		a.give(t, "other", sold("e1"))
		elsewhere := a.report(t, "other", "e1", body, key...)
		want(t, elsewhere, http.StatusOK)
		if asGroup(t, parse(t, elsewhere.body))["id"] == id {
			t.Error("two organizations have the same id for a key")
		}
		wantSame(t, 2, len(a.listAll(t, "acme", nil)))
	})
}

func (a *api) deleteEntitlement(t testing.TB, org, id string) {
	t.Helper()
	_, _, err := a.table.DeleteEntitlement(t.Context(), metering.OrgID(org), metering.EntitlementID(id), metering.EntitlementDeletion{Now: now})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBatchCreate_StoresAllInOrder(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"), sold("e2", doc{"partner": "GCP", "marketplace": doc{"usageReportingID": "r2", "serviceName": "s.example.com"}}))
		body := []any{}
		for i := range 250 {
			body = append(body, doc{"entitlementID": []string{"e1", "e2"}[i%2], "records": doc{"cpu": i + 1}})
		}
		got := a.batch(t, "acme", toJSON(t, body))
		want(t, got, http.StatusOK)
		groups := parse(t, got.body).([]any)
		serials := map[string]bool{}
		for i, value := range groups {
			g := asGroup(t, value)
			if !equal(g["records"], doc{"cpu": exact(strconv.Itoa(i + 1))}) || g["partner"] != []string{"AWS", "GCP"}[i%2] {
				t.Fatalf("group %d is %v", i, g)
			}
			serials[fmt.Sprint(g["serialID"])] = true
		}
		if len(groups) != 250 || len(serials) != 250 || len(a.listAll(t, "acme", nil)) != 250 {
			t.Errorf("%d groups with %d serials, %d listed", len(groups), len(serials), len(a.listAll(t, "acme", nil)))
		}
	})
}

func TestBatchCreate_RefusedBatchStoresNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		for _, c := range []struct {
			body   string
			status int
			says   []string
		}{
			{`[]`, 400, nil},
			{`{}`, 400, nil},
			{`[{"entitlementID":"e1","records":{"cpu":1}},{"records":{"cpu":1}}]`, 400, []string{"index 1", "entitlementID is missing"}},
			{`[{"entitlementID":"e1","records":{"cpu":0}},{"entitlementID":"e1","records":{"cpu":1}},{"entitlementID":"e1","billableRecords":[{"key":"m"}]}]`, 400, []string{"indexes 0 and 2", "every quantity is 0"}},
			{`[{"entitlementID":"e9","records":{"cpu":1}},{"entitlementID":"e1","records":{"cpu":1}},{"entitlementID":"e8","records":{"cpu":1}}]`, 400, []string{"indexes 0 and 2", "e9"}},
			{`[{"id":"u1","entitlementID":"e1","records":{"cpu":1}},{"entitlementID":"e1","records":{"cpu":1}},{"id":"u1","entitlementID":"e1","records":{"cpu":1}}]`, 400, []string{"index 2", "index 0", "u1"}},
			{`[{"entitlementID":"e1","records":{"cpu":1}},{"entitlementID":"e1","records":{"":1}}]`, 400, []string{"index 1"}},
		} {
			wantError(t, a.batch(t, "acme", c.body), c.status, c.says...)
		}
		wantSame(t, []doc{}, a.listAll(t, "acme", nil))
	})
}

func TestBatchCreate_IDsOfTheClient(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		item := func(id string, quantity int) doc {
			return doc{"id": id, "entitlementID": "e1", "records": doc{"cpu": quantity}}
		}
		want(t, a.batch(t, "acme", toJSON(t, []any{item("u1", 1), item("u2", 2)})), http.StatusOK)
		want(t, a.delete(t, "acme", "u1", ""), http.StatusOK)

		// What exists with the same content counts as stored, and is returned as it is.
		got := a.batch(t, "acme", toJSON(t, []any{item("u3", 3), item("u2", 2), item("u1", 1)}))
		want(t, got, http.StatusOK)
		statuses := []string{}
		for _, g := range parse(t, got.body).([]any) {
			statuses = append(statuses, g.(doc)["id"].(string)+" "+g.(doc)["status"].(string))
		}
		wantSame(t, []string{"u3 CREATED", "u2 CREATED", "u1 DELETED"}, statuses)

		wantError(t, a.batch(t, "acme", toJSON(t, []any{item("u4", 4), item("u2", 3), item("u5", 5), item("u3", 4)})), http.StatusConflict, "indexes 1 and 3", "u2")
		ids := idsOf(a.listAll(t, "acme", nil))
		slices.Sort(ids)
		wantSame(t, []string{"u1", "u2", "u3"}, ids)
	})
}

func TestBatchCreate_IdempotencyKey(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"), sold("e2"))
		body := []any{}
		for i := range 120 {
			body = append(body, doc{"entitlementID": []string{"e1", "e2"}[i%2], "records": doc{"cpu": i + 1}})
		}
		text := toJSON(t, body)
		first := a.batch(t, "acme", text, "Idempotency-Key", "k1")
		want(t, first, http.StatusOK)
		groups := parse(t, first.body)
		wantSame(t, groups, parse(t, a.batch(t, "acme", text, "Idempotency-Key", "k1").body))
		wantError(t, a.batch(t, "acme", toJSON(t, body[:119]), "Idempotency-Key", "k1"), http.StatusConflict, "Idempotency-Key")
		wantSame(t, 120, len(a.listAll(t, "acme", nil)))

		// A batch of which a part is missing is completed, whatever its entitlements have become.
		for _, i := range []int{1, 7, 119} {
			a.removeGroup(t, "acme", groups.([]any)[i].(doc)["id"].(string))
		}
		a.give(t, "acme", sold("e2", doc{"status": "SUSPENDED"}))
		a.clock.set(now.Add(5 * time.Second))
		again := a.batch(t, "acme", text, "Idempotency-Key", "k1")
		want(t, again, http.StatusOK)
		for i, value := range parse(t, again.body).([]any) {
			before, after := groups.([]any)[i].(doc), value.(doc)
			wantSame(t, before["id"], after["id"])
			wantSame(t, before["metaInfo"].(doc)["originRecords"], after["metaInfo"].(doc)["originRecords"])
			if completed := slices.Contains([]int{1, 7, 119}, i); completed == (after["status"] == "CREATED") {
				t.Errorf("group %d is %v", i, after["status"])
			}
		}
		wantSame(t, 120, len(a.listAll(t, "acme", nil)))
	})
}

func TestRetry_IdempotencyKeyNeverRetriesTwice(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"), sold("e2"))
		report := func() string {
			return asGroup(t, parse(t, a.report(t, "acme", "e1", `{"records":{"disk":1}}`).body))["id"].(string)
		}
		id := report()
		first := a.retry(t, "acme", id, "", "Idempotency-Key", "r1")
		want(t, first, http.StatusOK)
		a.give(t, "acme", sold("e1", doc{"info": doc{"dimensions": []any{doc{"key": "disk"}}}}))
		wantSame(t, parse(t, first.body), parse(t, a.retry(t, "acme", id, "", "Idempotency-Key", "r1").body))
		second := a.retry(t, "acme", id, "", "Idempotency-Key", "r2")
		want(t, second, http.StatusOK)
		wantSame(t, "CREATED", asGroup(t, parse(t, second.body))["status"])
		for _, key := range []string{"r1", "r2"} { // as the group is now, and not 400
			wantSame(t, parse(t, second.body), parse(t, a.retry(t, "acme", id, "", "Idempotency-Key", key).body))
		}
		wantError(t, a.retry(t, "acme", id, "", "Idempotency-Key", "r3"), http.StatusBadRequest, "CREATED")
		wantError(t, a.retry(t, "acme", id, "creationDate=2024-07-28", "Idempotency-Key", "r2"), http.StatusNotFound)

		a.give(t, "acme", sold("e1"))
		a.clock.set(now.Add(5 * time.Second))
		other := report() // a key belongs to its group
		for i := range metering.MaxRetryKeys {
			want(t, a.retry(t, "acme", other, "", "Idempotency-Key", "r"+strconv.Itoa(i)), http.StatusOK)
		}
		wantError(t, a.retry(t, "acme", other, "", "Idempotency-Key", "one more"), http.StatusBadRequest, "100")
		want(t, a.retry(t, "acme", other, "", "Idempotency-Key", "r7"), http.StatusOK)
		want(t, a.retry(t, "acme", other, ""), http.StatusOK)
	})
}

func TestRetry_OfAGroupThatFailed(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		failed := doc{
			"status": "REPORT_FAILED", "entitlementID": "e1", "usageRecordReportID": "report-1", "reportedTime": "2024-07-29T15:00:00Z", "productID": "old",
			"records": doc{"cpu": 2}, "metaInfo": doc{"timestamp": "2024-07-29T14:00:00Z", "originRecords": doc{"cpu": 2}}, "creationTime": "2024-07-29T14:30:00Z",
		}
		problem := func(code string) doc {
			return doc{"problems": []any{doc{"code": code, "path": "/records/cpu", "message": "m", "hint": ""}}}
		}
		a.put(t, "acme", group("refused", failed, problem("MARKETPLACE_REFUSED")), group("unknown", failed, problem("OUTCOME_UNKNOWN")),
			group("conflict", failed, problem("CONFLICT")), group("pending", failed, doc{"status": "REPORT_PENDING"}), group("reported", failed, doc{"status": "REPORTED"}),
			group("bare", failed, doc{"metaInfo": doc{}, "status": "INVALID"}), group("lost", failed, doc{"metaInfo": doc{}, "status": "INVALID", "entitlementID": "gone"}))
		got := a.retry(t, "acme", "refused", "")
		want(t, got, http.StatusOK)
		g := asGroup(t, parse(t, got.body))
		wantSame(t, []any{"CREATED", "", "buyer-of-e1", nil, nil}, []any{g["status"], g["usageRecordReportID"], g["buyerID"], g["reportedTime"], g["problems"]})
		if due := a.work(t, "acme", "refused"); !strings.HasPrefix(due, "2024-07-29T14#") { // even if it was imported
			t.Errorf("the work is due as %q", due)
		}
		wantSame(t, []string{"refused"}, idsOf(a.listAll(t, "acme", url.Values{"buyerId": {"buyer-of-e1"}})))
		wantSame(t, []string{"refused"}, idsOf(a.listAll(t, "acme", url.Values{"productId": {"product-1"}})))
		for id, says := range map[string]string{"unknown": "OUTCOME_UNKNOWN", "conflict": "CONFLICT", "pending": "REPORT_PENDING", "reported": "REPORTED"} {
			before := a.stored(t, "acme", id)
			wantError(t, a.retry(t, "acme", id, ""), http.StatusBadRequest, says)
			wantSame(t, before, a.stored(t, "acme", id))
		}
		// What was imported without what was sent is converted from its records, which are never
		// lost.
		g = asGroup(t, parse(t, a.retry(t, "acme", "bare", "").body))
		wantSame(t, []any{"CREATED", doc{"cpu": exact("2")}}, []any{g["status"], g["metaInfo"].(doc)["originRecords"]})
		g = asGroup(t, parse(t, a.retry(t, "acme", "lost", "").body))
		wantSame(t, []any{"INVALID", []string{"ENTITLEMENT_UNKNOWN"}, doc{"cpu": exact("2")}}, []any{g["status"], codes(g), g["metaInfo"].(doc)["originRecords"]})
	})
}

// A part of the group is billed. The rest is reported as it is stored, later, and nothing of the
// group can be deleted.
func TestRetry_OfAGroupThatIsBilledInPart(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		a.put(t, "acme", group("g1", doc{
			"status": "REPORT_FAILED", "entitlementID": "e1", "usageRecordReportID": "report-1", "records": doc{"cpu": 2, "renamed": 3},
			"metaInfo": doc{"timestamp": "2024-07-29T14:00:00Z", "originRecords": doc{"cpu": 2, "old": 3}}, "creationTime": "2024-07-29T14:30:00Z",
			"problems": []any{doc{"code": "MARKETPLACE_REFUSED", "path": "/records/renamed", "message": "m", "hint": ""}},
		}))
		item := a.storedItem(t, "ORG#acme", "GROUP#g1")
		item["_hour"] = &types.AttributeValueMemberS{Value: "2024-07-29T14"}
		item["_outcomes"] = &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{
			"cpu": &types.AttributeValueMemberS{Value: "ACCEPTED"}, "renamed": &types.AttributeValueMemberS{Value: "REJECTED"},
		}}
		a.putItem(t, item)
		got := a.retry(t, "acme", "g1", "", "Idempotency-Key", "r1")
		want(t, got, http.StatusOK)
		g := asGroup(t, parse(t, got.body))
		wantSame(t, []any{"CREATED", "", nil, doc{"cpu": exact("2"), "renamed": exact("3")}}, []any{g["status"], g["usageRecordReportID"], g["problems"], g["records"]})
		if due := a.work(t, "acme", "g1"); !strings.HasPrefix(due, "2024-07-29T15#") {
			t.Errorf("the work is due as %q", due)
		}
		wantError(t, a.delete(t, "acme", "g1", ""), http.StatusBadRequest, `"cpu" is billed`)
		wantSame(t, g, a.stored(t, "acme", "g1"))
		wantSame(t, parse(t, got.body), parse(t, a.retry(t, "acme", "g1", "", "Idempotency-Key", "r1").body))
		wantError(t, a.retry(t, "acme", "g1", ""), http.StatusBadRequest, "CREATED")
	})
}

func TestRetry_TakesNoBody(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1", doc{"status": "INVALID"}))
		wantError(t, a.post(t, groupPath("acme", "g1")+"/retry", `{}`), http.StatusBadRequest, "body")
		for _, query := range []string{"creationDate=yesterday", "force=1"} {
			wantError(t, a.retry(t, "acme", "g1", query), http.StatusBadRequest)
		}
	})
}

func TestGetGroup_IsExactAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		g := group("g1")
		a.put(t, "acme", g)
		got := a.get(t, groupPath("acme", "g1"), "")
		want(t, got, http.StatusOK)
		wantSame(t, answered(t, "acme", g), asGroup(t, parse(t, got.body)))
		for _, path := range []string{groupPath("acme", "g2"), groupPath("other", "g1"), groupPath("acme", strings.Repeat("x", 37))} {
			wantError(t, a.get(t, path, ""), http.StatusNotFound)
		}
		wantError(t, a.get(t, groupPath("acme", "g1"), "creationDate=2024-07-28"), http.StatusBadRequest)
	})
}

// An import creates no work, and a group that is deleted or that an older version has stored has
// none.
func TestWork_IsOfReportsAlone(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("imported"))
		wantSame(t, "", a.work(t, "acme", "imported"))
	})
}

// A report by terms that are held costs one write and no read.
func TestReport_WarmIsOnePut(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		cold := a.report(t, "acme", "e1", `{"records":{"cpu":1}}`)
		want(t, cold, http.StatusOK)
		warm := a.report(t, "acme", "e1", `{"records":{"cpu":1}}`)
		want(t, warm, http.StatusOK)
		actions := func(got answer) (all []string) {
			for _, r := range got.operation {
				all = append(all, r.Action)
			}
			slices.Sort(all)
			return all
		}
		wantSame(t, []string{"BatchGetItem", "PutItem", "Query", "UpdateItem"}, actions(cold))
		wantSame(t, []string{"PutItem"}, actions(warm))

		// docs/data-model.md has these units.
		units := func(got answer) []any {
			want(t, got, http.StatusOK)
			lines := a.log.all(t)
			return []any{lines[len(lines)-1]["operation"], lines[len(lines)-1]["writeUnits"]}
		}
		id := asGroup(t, parse(t, warm.body))["id"].(string)
		wantSame(t, []any{"reportUsageRecordGroup", 6.0}, units(a.report(t, "acme", "e1", `{"records":{"cpu":1}}`)))
		wantSame(t, []any{"deleteUsageRecordGroup", 7.0}, units(a.delete(t, "acme", id, "")))
		invalid := asGroup(t, parse(t, a.report(t, "acme", "e1", `{"records":{"disk":1}}`).body))["id"].(string)
		wantSame(t, []any{"retryUsageRecordGroup", 5.0}, units(a.retry(t, "acme", invalid, "")))
		a.give(t, "acme", sold("e1", doc{"info": doc{"dimensions": []any{doc{"key": "disk"}}}}))
		wantSame(t, []any{"retryUsageRecordGroup", 7.0}, units(a.retry(t, "acme", invalid, "")))
	})
}
