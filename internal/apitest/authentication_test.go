package apitest

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// wantNoKey sends a request without a valid key and checks that it is refused, after that many
// requests to DynamoDB. Over HTTP the response gives the reason; on AWS, API Gateway responds and
// gives none.
func (a *api) wantNoKey(t testing.TB, r request, asked int, texts ...string) {
	t.Helper()
	got := a.do(t, r)
	if a.isHTTP() {
		message := wantError(t, got, http.StatusUnauthorized, texts...)
		if has := got.headers.Get("WWW-Authenticate"); has != "Key" {
			t.Errorf("WWW-Authenticate is %q", has)
		}
		if key, _ := keyIn(r); len(key) >= 8 && sharesRun(message, string(key), 8) {
			t.Errorf("the error holds some of the key %s: %s", key, message)
		}
	} else {
		status := http.StatusForbidden
		if strings.Trim(r.headers["Authorization"], " ") == "" {
			status = http.StatusUnauthorized
		}
		if got.status != status || !got.ofGateway {
			t.Errorf("%s: %d %s", r.headers["Authorization"], got.status, got.body)
		}
	}
	if !a.isSAM() && (len(got.authentication) != asked || len(got.operation) != 0) {
		t.Errorf("%s: %d requests to DynamoDB, want %d", r.headers["Authorization"], len(got.authentication)+len(got.operation), asked)
	}
	if t.Failed() {
		t.Fatalf("%s %s with %q", r.method, r.path, r.headers["Authorization"])
	}
}

// sharesRun reports whether text holds some n bytes of secret.
func sharesRun(text, secret string, n int) bool {
	for i := 0; i+n <= len(secret); i++ {
		if strings.Contains(text, secret[i:i+n]) {
			return true
		}
	}
	return false
}

func TestKey_IsAcceptedInEachForm(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		key := string(a.newKey(t, "acme", auth.Read))
		list := request{method: "GET", path: listPath("acme")}
		for _, header := range []string{
			"Key " + key, "Bearer " + key, key, "key " + key, "KEY " + key, "kEy " + key, "bearer " + key, "BEARER " + key, "bEaReR " + key,
			"  Key   " + key + "  ", "\tBearer " + key + "\t", " " + key + " ",
		} {
			if got := a.do(t, list.authorized(header)); got.status != http.StatusOK {
				t.Errorf("%q: %d %s", header, got.status, got.body)
			}
		}
	})
}

// Anything that is not a key is refused as such without a read.
func TestKey_MalformedIsRefusedWithoutARead(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		key := string(a.newKey(t, "acme", allScopes))
		list := request{method: "GET", path: listPath("acme")}
		for _, header := range []string{
			"", " ", "Key", "Key ", "Bearer", "Bearer  ", "Basic " + key, "Token " + key, "ApiKey " + key, "AWS4-HMAC-SHA256 " + key, "Key" + key, "Key:" + key,
			"Key=" + key, "Key Key " + key, "Bearer Key " + key, "Key " + key + " " + key, key + " " + key, key + key, `Key "` + key + `"`, "Key " + key + ";",
			"Key " + key + ",Key " + key, key + "," + key, key + ", " + key, "Key ," + key, "Key " + key + ",", "Key mm_", "Key m", "Key " + strings.Repeat("x", 41),
			"Key mm_" + strings.Repeat("0", 38), "Key " + strings.Repeat("x", 8000), "Key " + key + "x", "Key x" + key, "Key " + key[:40], "Key " + key[1:], "Key " + key[3:],
			"Key " + key[:20] + key[21:], "Key " + key[:20] + " " + key[20:], "Key " + key[:20] + "\t" + key[20:], "Key " + strings.ToUpper(key), "Key " + strings.ToLower(key),
			"Key MM_" + key[3:], "Key " + swapCase(key[:3]) + key[3:], "Key mm_" + swapCase(key[3:]), "Key mm-" + key[3:], "Key %6Dm_" + key[3:], "null", "undefined", "Key ${MARKETMETER_KEY}",
			"Key ü" + key[2:], "Key ｍm_" + key[3:], "' OR 1=1 --", `{"key": "` + key + `"}`,
		} {
			a.wantNoKey(t, list.authorized(header), 0)
		}
		for length := range len(key) {
			a.wantNoKey(t, list.authorized("Key "+key[:length]), 0)
		}
		for _, twice := range []string{"Key " + key, key, "", "Key ", "x"} {
			r := list.authorized("Key " + key)
			r.again = map[string]string{"Authorization": twice}
			if a.isHTTP() && twice == "" || !a.carries(r) {
				continue // that sends it once
			}
			a.wantNoKey(t, r, 0)
		}
		want(t, a.do(t, list.with(auth.Key(key))), http.StatusOK)
	})
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		if upper := []rune(strings.ToUpper(string(r)))[0]; upper != r {
			return upper
		}
		return []rune(strings.ToLower(string(r)))[0]
	}, s)
}

// For all keys and positions, replacing the character makes the key malformed, and so does swapping
// it with its neighbor.
func TestKey_TypoIsReportedWithoutARead(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		list := request{method: "GET", path: listPath("acme")}
		d := newDice(3)
		const others = base62 + base62 + base62 + "_-./+=~!"
		for range 3 {
			key := []byte(a.newKey(t, "acme", allScopes))
			for i, right := range key {
				for range 3 {
					if key[i] = others[d.IntN(len(others))]; key[i] != right {
						a.wantNoKey(t, list.authorized("Key "+string(key)), 0)
					}
				}
				if key[i] = right; i > 0 && key[i-1] != right {
					key[i-1], key[i] = key[i], key[i-1]
					a.wantNoKey(t, list.authorized("Key "+string(key)), 0)
					key[i-1], key[i] = key[i], key[i-1]
				}
			}
			want(t, a.do(t, list.with(auth.Key(key))), http.StatusOK)
		}
	})
}

// A key that is no longer valid, or never was, costs one read. Its client is treated like one
// without a key: nothing is written.
func TestKey_InvalidIsRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"))
		expiring := func(at time.Time) auth.Key { return a.expiring(t, at) }
		revoked, both := a.newKey(t, "acme", allScopes), expiring(now.Add(-time.Hour))
		for _, key := range []auth.Key{revoked, both} {
			if _, err := a.table.RevokeAPIKey(t.Context(), "acme", key.Hash(), now.Add(-time.Minute), "test"); err != nil {
				t.Fatal(err)
			}
		}
		for what, c := range map[string]struct {
			key  auth.Key
			text string
		}{
			"unknown":              {auth.New(), "not known"},
			"revoked":              {revoked, "revoked at 2024-07-29T15:50:28.071Z"},
			"revoked and expired":  {both, "revoked"},
			"expired long ago":     {expiring(now.Add(-10000 * time.Hour)), "expired"},
			"expired a moment ago": {expiring(now.Add(-time.Millisecond)), "expired"},
			"expiring exactly now": {expiring(now), "expired at 2024-07-29T15:51:28.071Z"},
			"nothing but zeros":    {keyOf(strings.Repeat("0", 32)), "not known"},
		} {
			before := a.dump(t)
			for _, r := range everyOperation("acme") {
				a.wantNoKey(t, r.with(c.key), 1, c.text)
			}
			if wantSame(t, before, a.dump(t)); t.Failed() {
				t.Fatal(what)
			}
		}
	})
}

func TestKey_IsValidUntilItExpires(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, until := range []time.Duration{time.Millisecond, time.Hour, 100_000 * time.Hour} {
			want(t, a.do(t, request{method: "GET", path: listPath("acme")}.with(a.expiring(t, now.Add(until)))), http.StatusOK)
		}
	})
}

func (a *api) expiring(t testing.TB, at time.Time) auth.Key {
	t.Helper()
	return a.newKey(t, "acme", allScopes, func(r *auth.Record) { r.ExpiryTime = at })
}

// Over HTTP nothing is cached: a revoked key is refused from the next request on. (On AWS, API
// Gateway caches, but the authorizer itself does not.)
func TestKey_RevocationIsImmediate(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		key, other := a.newKey(t, "acme", allScopes), a.newKey(t, "acme", allScopes)
		list := request{method: "GET", path: listPath("acme")}
		want(t, a.do(t, list.with(key)), http.StatusOK)
		if _, err := a.table.RevokeAPIKey(t.Context(), "acme", key.Hash(), now, "test"); err != nil {
			t.Fatal(err)
		}
		a.wantNoKey(t, list.with(key), 1, "revoked")
		want(t, a.do(t, list.with(other)), http.StatusOK)
	})
}

// The client is authenticated before anything else of a request is read.
func TestKey_IsCheckedBeforeTheRequest(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, r := range []request{
			{method: "GET", path: listPath("acme"), query: "limit=0&foo=1"},
			{method: "DELETE", path: groupPath("acme", strings.Repeat("x", 500))},
			{method: "POST", path: validatePath("acme"), body: "x", headers: map[string]string{"Content-Type": "text/plain"}},
			{method: "PATCH", path: configPath("acme"), body: "x", headers: map[string]string{"If-Match": "x"}},
			{method: "GET", path: listPath(strings.Repeat("o", 65))},
			{method: "GET", path: listPath("a\x00")},
		} {
			a.wantNoKey(t, r.authorized(""), 0, "no key", "Authorization: Key <key>")
			a.wantNoKey(t, r.authorized("Key x"), 0, "not a key")
		}
	})
}

// The first use in an hour is noted, to the hour, by one request; later ones cost only a read.
func TestKey_UseIsStoredOnceAnHour(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		key, idle := a.newKey(t, "acme", auth.Read), a.newKey(t, "acme", auth.Read)
		list := request{method: "GET", path: listPath("acme")}
		start := time.Date(2024, 7, 29, 15, 0, 0, 0, time.UTC)
		for _, c := range []struct {
			at      time.Duration
			noted   bool
			lastUse string
		}{
			{51 * time.Minute, true, "2024-07-29T15:00:00.000Z"},
			{51 * time.Minute, false, "2024-07-29T15:00:00.000Z"},
			{time.Hour - time.Millisecond, false, "2024-07-29T15:00:00.000Z"},
			{time.Hour, true, "2024-07-29T16:00:00.000Z"},
			{time.Hour + time.Minute, false, "2024-07-29T16:00:00.000Z"},
			{30 * time.Minute, false, "2024-07-29T16:00:00.000Z"}, // a clock that goes backwards
			{1000 * time.Hour, true, "2024-09-09T07:00:00.000Z"},
		} {
			a.clock.set(start.Add(c.at))
			got := a.do(t, list.with(key))
			want(t, got, http.StatusOK)
			actions := []string{"GetItem"}
			if c.noted {
				actions = append(actions, "UpdateItem")
			}
			wantSame(t, actions, actionsOf(got.authentication))
			wantSame(t, any(c.lastUse), a.keyItem(t, key)["lastUsedTime"])
		}
		if used, there := a.keyItem(t, idle)["lastUsedTime"]; there {
			t.Errorf("a key that was never used was used at %v", used)
		}
		// A request that the key does not allow counts as a use, too.
		if got := a.do(t, request{method: "DELETE", path: groupPath("acme", "g1")}.with(idle)); got.status != http.StatusForbidden {
			t.Errorf("%d %s", got.status, got.body)
		}
		wantSame(t, any("2024-09-09T07:00:00.000Z"), a.keyItem(t, idle)["lastUsedTime"])
	})
}

func actionsOf(requests []tabletest.Request) []string {
	actions := []string{}
	for _, r := range requests {
		actions = append(actions, r.Action)
	}
	return actions
}

func (a *api) keyItem(t testing.TB, key auth.Key) doc {
	t.Helper()
	out, err := a.client.GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: &a.tableName, Key: map[string]types.AttributeValue{"PK": text(keyPartition(key)), "SK": text("KEY")}, ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		t.Fatal(err)
	}
	return plainItem(out.Item)
}

// Only the hash of a key is stored. No item contains any part of the key itself.
func TestKey_HashAloneIsStored(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		key := a.newKey(t, "acme", allScopes)
		want(t, a.do(t, request{method: "GET", path: listPath("acme")}.with(key)), http.StatusOK)
		stored := toJSON(t, a.dump(t))
		if sharesRun(stored, string(key), 6) {
			t.Errorf("the table holds some of the key %s: %s", key, stored)
		}
		if !strings.Contains(stored, keyPartition(key)) {
			t.Errorf("the table does not hold the key's hash: %s", stored)
		}
	})
}

// keysOver is the API over a's table, with keys read through a client with these faults.
func (a *api) keysOver(t testing.TB, faults ...tabletest.Fault) *api {
	client, _ := tabletest.NewFaults(faults...)
	return a.keysIn(t, table.New(client, a.tableName))
}

// keysIn is the API over a's table, with keys looked up in records.
func (a *api) keysIn(t testing.TB, records auth.Records) *api {
	way := "http"
	if !a.isHTTP() {
		way = "lambda"
	}
	b := serveWith(t, way, a.table, records, a.keys)
	b.client, b.tableName, b.table = a.client, a.tableName, a.table
	return b
}

func (a *api) isHTTP() bool {
	_, is := a.way.(*overHTTP)
	return is
}

// If a key can't be checked, the request fails, but not as a refusal: API Gateway would cache a
// refusal.
func TestKey_FailedCheckIsNoRefusal(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"))
		key := a.newKey(t, "acme", allScopes)
		before := a.dump(t)
		var wait sync.WaitGroup
		answers := make(chan answer, 100)
		for _, fault := range []tabletest.Fault{tabletest.Throttle, tabletest.Drop, tabletest.Empty} {
			b := a.keysOver(t, slices.Repeat([]tabletest.Fault{fault}, 1000)...)
			for _, r := range everyOperation("acme") {
				wait.Go(func() { answers <- b.do(t, r.with(key)) })
			}
		}
		wait.Wait()
		close(answers)
		for got := range answers {
			if !a.isHTTP() {
				if got.status != http.StatusInternalServerError || !got.ofGateway {
					t.Errorf("%d %s", got.status, got.body)
				}
				continue
			}
			message := wantError(t, got, http.StatusServiceUnavailable, "try again")
			if got.headers.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if strings.Contains(message, "secret") || strings.Contains(message, "127.0.0.1") {
				t.Errorf("the error tells too much: %s", message)
			}
		}
		wantSame(t, before, a.dump(t))
	})
}

// A note of a use that is lost, or that takes long, fails no request.
func TestKey_LostUseRefusesNoRequest(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		list := request{method: "GET", path: listPath("acme")}
		for what, fault := range map[string]tabletest.Fault{"throttled": tabletest.Throttle, "lost": tabletest.Lose} {
			b := a.keysOver(t, append([]tabletest.Fault{tabletest.Pass}, slices.Repeat([]tabletest.Fault{fault}, 1000)...)...)
			if got := b.do(t, list.with(a.newKey(t, "acme", auth.Read))); got.status != http.StatusOK {
				t.Errorf("%s: %d %s", what, got.status, got.body)
			}
		}
		c := a.keysIn(t, silentNotes{a.table})
		if got := c.do(t, list.with(a.newKey(t, "acme", auth.Read))); got.status != http.StatusOK {
			t.Errorf("silent: %d %s", got.status, got.body)
		}
	})
}

// silentNotes are the table's keys, whose uses never finish being noted.
type silentNotes struct{ *table.Table }

func (silentNotes) APIKeyUsed(ctx context.Context, _ auth.Hash, _ time.Time) error {
	<-ctx.Done()
	return ctx.Err()
}

// A record that does not state the scopes of its key admits no request.
func TestKey_UnreadableRecordAllowsNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"))
		for _, change := range []string{
			"SET scopes = :none", "SET scopes = :capitals", "REMOVE scopes", "SET scopes = :number", "REMOVE organizationID",
			"SET organizationID = :number", "SET expiryTime = :unknown", "SET revocationTime = :none", "REMOVE creationTime",
		} {
			key := a.newKey(t, "acme", allScopes)
			values := map[string]types.AttributeValue{
				":none": text(""), ":unknown": text("soon"), ":capitals": text("READ"), ":number": &types.AttributeValueMemberN{Value: "15"},
			}
			for name := range values {
				if !strings.HasSuffix(change, name) {
					delete(values, name)
				}
			}
			if len(values) == 0 {
				values = nil
			}
			if _, err := a.client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
				TableName: &a.tableName, Key: map[string]types.AttributeValue{"PK": text(keyPartition(key)), "SK": text("KEY")},
				UpdateExpression: &change, ExpressionAttributeValues: values,
			}); err != nil {
				t.Fatal(err)
			}
			before := a.dump(t)
			for _, operation := range []string{"listUsageRecordGroups", "replaceUsageMeteringConfigInfo"} {
				got := a.do(t, everyOperation("acme")[operation].with(key))
				if !slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusInternalServerError}, got.status) || len(got.operation) > 0 {
					t.Errorf("%s: %s: %d %s", change, operation, got.status, got.body)
				}
			}
			wantSame(t, before, a.dump(t))
		}
	})
}

// A scope that a newer version has added to a key, and that this version does not know, allows
// nothing and removes nothing.
func TestKey_UnknownScopesChangeNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for scopes, known := range map[string][]string{
			"read,report": {"read"}, "report, config,adminX": {"config"}, "report": nil, "READ,Admin,read write,\u00e9": nil, "report,admin": {"admin"},
		} {
			org := "acme " + strings.Join(known, "") + scopes[:1]
			a.giveAll(t, org)
			key := a.newKey(t, org, allScopes)
			a.setAttribute(t, key, "scopes", scopes)
			a.setAttribute(t, key, "team", "an attribute that this version does not know")
			for _, o := range operations() {
				got := a.do(t, o.example.of(org).with(key))
				if o.admits(known...) {
					want(t, got, http.StatusOK)
				} else {
					wantError(t, got, http.StatusForbidden, "this takes one of")
				}
			}
		}
	})
}

// dump returns all items of the table, by their keys, without the times of last use.
func (a *api) dump(t testing.TB) map[string]doc {
	t.Helper()
	items, err := itemsIn(t.Context(), a.client, a.tableName)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		delete(item, "lastUsedTime")
	}
	return items
}
