package apitest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// effects returns those of all operations, and what else operators do.
func effects() (all []effect) {
	for _, o := range operations() {
		all = append(all, o.effects...)
	}
	return append(all, operatorEffects...)
}

var operatorEffects = []effect{
	{
		// As the program does it for each line, except that a program repeats it as the same
		// operation. That the lines of an import and their counts agree with what is stored,
		// whatever its requests return, is tested by TestImport_EachFaultLosesNothing in transfer.
		name: "import a group",
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			g, err := decodeGroup(w.org, group("g1"))
			if err != nil {
				return answerOf(nil, err)
			}
			return answerOf(over.Put(ctx, g))
		},
		again: http.StatusOK,
	},
	{
		name:    "raise the serial counter",
		prepare: func(ctx context.Context, w *world) error { return w.table.RaiseSerial(ctx, metering.OrgID(w.org), 7) },
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return answerOf(nil, over.RaiseSerial(ctx, metering.OrgID(w.org), 9))
		},
		again: http.StatusOK,
	},
	{
		name: "make an API key",
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return answerOf(nil, over.AddAPIKey(ctx, w.record(0)))
		},
		again: http.StatusInternalServerError, // the same key is never made twice
	},
	{
		name:    "rotate an API key",
		prepare: func(ctx context.Context, w *world) error { return w.table.AddAPIKey(ctx, w.record(0)) },
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return answerOf(nil, over.RotateAPIKey(ctx, w.keys[0], w.now().Add(time.Hour), w.record(1)))
		},
		again: http.StatusNotFound,
	},
	{
		name:    "revoke an API key",
		prepare: func(ctx context.Context, w *world) error { return w.table.AddAPIKey(ctx, w.record(0)) },
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return answerOf(over.RevokeAPIKey(ctx, metering.OrgID(w.org), w.keys[0], w.now(), "operator"))
		},
		again: http.StatusOK,
	},
	{
		name:    "note the use of an API key",
		prepare: func(ctx context.Context, w *world) error { return w.table.AddAPIKey(ctx, w.record(0)) },
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return answerOf(nil, over.APIKeyUsed(ctx, w.keys[0], w.now().Truncate(time.Hour)))
		},
		again: http.StatusOK,
	},
	{
		name: "list the API keys",
		prepare: func(ctx context.Context, w *world) error {
			if err := w.table.AddAPIKey(ctx, w.record(0)); err != nil {
				return err
			}
			return w.table.AddAPIKey(ctx, w.record(1))
		},
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			records, err := over.APIKeys(ctx, metering.OrgID(w.org))
			slices.SortFunc(records, func(a, b auth.Record) int { return strings.Compare(a.Label, b.Label) }) // both have the same time
			return answerOf(records, err)
		},
		again: http.StatusOK, reads: true,
	},
}

// answerOf is the response that the API would return to what an operator did.
func answerOf(result any, err error) answer {
	body, failure := json.Marshal(result)
	switch err = errors.Join(err, failure); {
	case err == nil:
		return answer{status: http.StatusOK, body: string(body)}
	case errors.Is(err, errIsThere):
		return answer{status: http.StatusConflict, body: err.Error()}
	}
	statuses := map[metering.Code]int{
		metering.Unavailable: http.StatusServiceUnavailable, metering.NotFound: http.StatusNotFound, metering.Invalid: http.StatusBadRequest,
	}
	return answer{status: cmp.Or(statuses[metering.CodeOf(err)], http.StatusInternalServerError), body: err.Error()}
}

// err is an error unless the status is 200.
func (got answer) err() error {
	if got.status != http.StatusOK {
		return fmt.Errorf("%d %s", got.status, got.body)
	}
	return nil
}

// world is an organization with its items, in a table that it shares with others.
type world struct {
	client     *dynamodb.Client
	tableName  string
	table      *table.Table
	org        string
	keys       [2]auth.Hash
	keyID      string      // of its requests
	times      []time.Time // of its clock, the last being now
	requests   func() []tabletest.Request
	seen       int // requests, by items
	partitions map[string]*partitionItems
	effect     effect   // that is tested in it
	read       []string // by readOn

	names   *strings.Replacer // of plainText
	namesAt int               // how many times it was made of
}

// begins is the time at which every world starts: late enough that DynamoDB Local, which uses the
// real time, does not delete what expires.
var begins = time.Date(2099, 7, 29, 15, 51, 28, 71_000_000, time.UTC)

func newWorld(client *dynamodb.Client, tableName string) *world {
	return &world{
		client: client, tableName: tableName, table: table.New(client, tableName), times: []time.Time{begins},
		org: string(auth.New()), keys: [2]auth.Hash{auth.New().Hash(), auth.New().Hash()}, keyID: "0123456789abcdef",
	}
}

// share makes the world one with another, which is only read. Its lists have no checkpoints yet:
// each key has its own.
func (w *world) share(of *world) {
	w.org, w.keys, w.keyID, w.partitions = of.org, of.keys, auth.New().Hash().ID(), map[string]*partitionItems{}
	for partition, p := range of.partitions {
		w.partitions[partition] = &partitionItems{items: p.items}
	}
}

func (w *world) now() time.Time { return w.times[len(w.times)-1] }

func (w *world) record(i int) *auth.Record {
	return &auth.Record{
		Hash: w.keys[i], Organization: w.org, Scopes: auth.Read | auth.Write, Label: "key " + strconv.Itoa(i), CreationTime: begins, CreatedBy: "operator",
	}
}

// prepare stores what the effect needs.
func (w *world) prepare(ctx context.Context, e effect) error {
	for _, r := range e.given {
		got := w.do(ctx, w.table, r)
		if err := got.err(); err != nil {
			return err
		}
	}
	if e.prepare != nil {
		return e.prepare(ctx, w)
	}
	return nil
}

// readOn reads a list to its end, as a client does that repeats a request a second later if it has
// to. It remembers a member of each object.
func (w *world) readOn(ctx context.Context, over *table.Table, path, list, member, filter string) answer {
	w.times = append(w.times, w.now().Add(time.Second))
	for {
		got := w.send(ctx, over, request{method: "GET", path: path, query: filter + "&offset=" + strconv.Itoa(len(w.read))})
		if got.err() != nil {
			return got
		}
		page, _ := values(got.body).(doc)
		objects, _ := page[list].([]any)
		for _, object := range objects {
			w.read = append(w.read, object.(doc)[member].(string))
		}
		switch next := fmt.Sprint(page["nextOffset"]); next {
		case "0":
			return answerOf(w.read, nil)
		case strconv.Itoa(len(w.read)):
		default:
			return answerOf(nil, fmt.Errorf("after %q nextOffset is %s", w.read, next))
		}
	}
}

// do sends a request, or does what an operator does.
func (w *world) do(ctx context.Context, over *table.Table, r request) answer {
	if r.operator != nil {
		return answerOf(nil, r.operator(ctx, over, w.org))
	}
	return w.send(ctx, over, r)
}

// send sends a request to the API on that table, with a key that has all permissions.
func (w *world) send(ctx context.Context, over *table.Table, r request) answer {
	api := &httpapi.API{
		Table: over, Log: slog.New(slog.DiscardHandler), Now: w.now, CountUnits: table.CountUnits,
		Authenticate: func(*http.Request) (auth.Principal, error) {
			return auth.Principal{Organization: metering.OrgID(w.org), KeyID: w.keyID, Scopes: auth.Admin}, nil
		},
	}
	if w.effect.hasty {
		api.ListFor = time.Nanosecond
	}
	r = r.of(w.org)
	request := httptest.NewRequestWithContext(ctx, r.method, r.path+"?"+r.query, strings.NewReader(r.body))
	for name, value := range r.headers {
		request.Header.Set(name, value)
	}
	got := httptest.NewRecorder()
	api.Handler().ServeHTTP(got, request)
	if got.Code == http.StatusServiceUnavailable && got.Header().Get("Retry-After") == "" {
		return answer{status: http.StatusInternalServerError, body: "a 503 without Retry-After"}
	}
	return answer{status: got.Code, body: plainTag(got.Header().Get("ETag"), got.Body.Bytes()) + got.Body.String()}
}

// plainTag is the ETag with BODY for the hash of the body, which may name the organization.
func plainTag(etag string, body []byte) string {
	sum := sha256.Sum256(body)
	return strings.Replace(etag, hex.EncodeToString(sum[:16]), "BODY", 1)
}

// items are all that is stored in the partitions requested so far; for an operation that only
// reads, without checkpoints. A partition is read again only if a write to it was recorded after
// the first call: nothing else changes it, and a write may be carried out long after it was sent.
func (w *world) items(ctx context.Context) (map[string]string, error) {
	prepared := w.partitions == nil
	if prepared {
		w.partitions = map[string]*partitionItems{}
	}
	requests := w.requests()
	for _, request := range requests[w.seen:] {
		for _, access := range request.Accesses {
			for _, partition := range access.Partitions {
				if access.Index != "" || w.effect.reads && strings.Contains(partition, "#PAGE#") {
					continue
				}
				p := w.partitions[partition]
				if p == nil {
					p = &partitionItems{}
					w.partitions[partition] = p
				}
				p.changes = p.changes || !prepared && !slices.Contains(readingActions, access.Action)
			}
		}
	}
	w.seen = len(requests)
	all := map[string]string{}
	for partition, p := range w.partitions {
		if p.items == nil || p.changes {
			if err := w.readItems(ctx, partition, p); err != nil {
				return nil, err
			}
		}
		maps.Copy(all, p.items)
	}
	return all, nil
}

// partitionItems are the items of a partition, by key, as they were last read.
type partitionItems struct {
	changes bool
	items   map[string]string
}

var readingActions = []string{"Query", "GetItem", "BatchGetItem", "ConditionCheckItem"}

func (w *world) readItems(ctx context.Context, partition string, p *partitionItems) error {
	out, err := w.client.Query(ctx, &dynamodb.QueryInput{
		TableName: &w.tableName, ConsistentRead: aws.Bool(true), KeyConditionExpression: aws.String("PK = :pk"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":pk": &types.AttributeValueMemberS{Value: partition}},
	})
	if err != nil {
		return err
	}
	p.items = map[string]string{}
	for _, item := range out.Items {
		text, err := json.Marshal(item)
		if err != nil {
			return err
		}
		sk := item["SK"].(*types.AttributeValueMemberS).Value
		if sk != "SERIAL" || !w.effect.numbers { // TestSerials_AreUniqueAcrossProcesses holds that no two groups have one number
			p.items[partition+" "+sk] = string(text)
		}
	}
	return nil
}

// plain makes items comparable with those of other worlds: it removes what belongs to this one
// alone.
func (w *world) plain(items map[string]string) map[string]string {
	all := map[string]string{}
	for key, text := range items {
		var item map[string]any
		if text != "" {
			if err := json.Unmarshal([]byte(text), &item); err != nil {
				panic(err)
			}
			delete(item, "_op")
			delete(item, "_deletion")
			delete(item, "_retry")
			delete(item, "_work")    // a hash of the organization, as is the other
			delete(item, "_request") // TestReport_IdempotencyKey holds it
			delete(item, "serialID") // a lost response costs numbers
		}
		plain, err := json.Marshal(item)
		if err != nil {
			panic(err)
		}
		all[w.plainText(key)] = w.plainText(string(plain))
	}
	return all
}

var serials = regexp.MustCompile(`"serialID":\d+`)

// plainText replaces what is of this world alone.
func (w *world) plainText(text string) string {
	if w.names == nil || w.namesAt != len(w.times) {
		w.names, w.namesAt = w.plainer(), len(w.times)
	}
	return madeMetricID.ReplaceAllString(w.names.Replace(serials.ReplaceAllString(text, `"serialID":1`)), "METRIC")
}

func (w *world) plainer() *strings.Replacer {
	pairs := []string{externalIDOf(w.org), "EXTERNALID", w.org, "ORGANIZATION"}
	for i, key := range w.keys {
		inJSON := strings.ReplaceAll(fmt.Sprintf("%d", key[:]), " ", ",")
		pairs = append(pairs, key.String(), fmt.Sprint("KEY", i), key.ID(), fmt.Sprint("ID", i), inJSON, fmt.Sprint("HASH", i))
	}
	for _, key := range []string{"report-key", "batch-key"} {
		for i := range 3 {
			pairs = append(pairs, keyed(w.org, key, i), fmt.Sprintf("ID%d-%s", i, key))
		}
	}
	for i := range 4 {
		for _, entitlement := range []metering.EntitlementID{"e-report", "e-other"} {
			pairs = append(pairs, metering.ReportID(metering.OrgID(w.org), entitlement, reportHour(i)), fmt.Sprintf("REPORT%d-%s", i, entitlement))
		}
	}
	for _, at := range w.times[1:] {
		for _, later := range []time.Duration{0, time.Hour} {
			pairs = append(pairs, metering.FormatTime(at.Add(later)), metering.FormatTime(begins.Add(later)))
		}
	}
	return strings.NewReplacer(pairs...)
}
