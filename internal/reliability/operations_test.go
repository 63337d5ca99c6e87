package reliability

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
	"github.com/marketmeter/marketmeter/internal/wire"
)

// operation is a request of a client or an operator.
type operation struct {
	name    string
	prepare func(ctx context.Context, w *world) error
	do      func(ctx context.Context, w *world, over *table.Table) answer

	again  int  // the status if it is requested again after it was done
	steady bool // the last writer wins: to do it again at the same time changes nothing, and later only a little
	reads  bool // it writes nothing but checkpoints of its list; its next pages show whether those are right
	hasty  bool // DynamoDB reads one group per response, and a list is read no longer than for one
}

// answer is the API's response. An operation directly on the table returns the response that the
// API would return.
type answer struct {
	status int
	body   string
}

var operations = []operation{
	{
		name:    "DELETE group",
		prepare: func(ctx context.Context, w *world) error { return w.put(ctx, w.table, "g1").err() },
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return w.send(ctx, over, "DELETE", "usageRecordGroup/g1", "")
		},
		again: http.StatusBadRequest,
	},
	{
		name: "PATCH config",
		prepare: func(ctx context.Context, w *world) error {
			return w.send(ctx, w.table, "PUT", "usageMeteringConfigInfo", `{"partnerUsageMeteringConfigs":[{"partner":"AWS"}]}`).err()
		},
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return w.send(ctx, over, "PATCH", "usageMeteringConfigInfo", `{"partnerUsageMeteringConfigs":[{"partner":"GCP"}]}`)
		},
		again: http.StatusOK,
	},
	{
		name: "PATCH config with If-Match",
		prepare: func(ctx context.Context, w *world) error {
			return w.send(ctx, w.table, "PUT", "usageMeteringConfigInfo", `{"partnerUsageMeteringConfigs":[{"partner":"AWS"}]}`).err()
		},
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return w.sendIf(ctx, over, etagOf(1, `{"partnerUsageMeteringConfigs":[{"partner":"AWS"}]}`), "PATCH", "usageMeteringConfigInfo", `{"partnerUsageMeteringConfigs":[{"partner":"GCP"}]}`)
		},
		again: http.StatusPreconditionFailed,
	},
	{
		name:    "PUT config",
		prepare: nothing,
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return w.send(ctx, over, "PUT", "usageMeteringConfigInfo", `{"partnerUsageMeteringConfigs":[{"partner":"AWS"}]}`)
		},
		again: http.StatusOK,
	},
	{
		name:    "GET a page that another follows",
		prepare: func(ctx context.Context, w *world) error { return w.put(ctx, w.table, "g1", "g2", "g3").err() },
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return w.send(ctx, over, "GET", "usageRecordGroup?limit=2", "")
		},
		again: http.StatusOK, steady: true,
	},
	{
		// Two responses hold nothing of the list: the first request stores an empty range, the
		// second a longer one. The third skips it, stores the checkpoint of its page and makes the
		// range expire. Then a page with the other group follows, and the end.
		name: "GET all pages of a list that is read in vain at first",
		prepare: func(ctx context.Context, w *world) error {
			if err := w.put(ctx, w.table, "g1", "g2", "g3", "g4").err(); err != nil {
				return err
			}
			for _, id := range []string{"g1", "g2"} {
				if err := w.send(ctx, w.table, "DELETE", "usageRecordGroup/"+id, "").err(); err != nil {
					return err
				}
			}
			return nil
		},
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return w.readOn(ctx, over, "buyerId=b&status=CREATED")
		},
		again: http.StatusOK, steady: true, reads: true, hasty: true,
	},
	{
		name:    "GET config",
		prepare: nothing,
		do: func(ctx context.Context, w *world, over *table.Table) answer {
			return w.send(ctx, over, "GET", "usageMeteringConfigInfo", "")
		},
		again: http.StatusOK, reads: true,
	},
	{
		// As the program does it for each line, except that a program repeats it as the same
		// operation. That the lines of an import and their counts agree with what is stored,
		// whatever its requests return, is tested by TestImport_EachFaultLosesNothing in transfer.
		name:    "import a group",
		prepare: nothing,
		do:      func(ctx context.Context, w *world, over *table.Table) answer { return w.put(ctx, over, "g1") },
		again:   http.StatusOK,
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
		name:    "make an API key",
		prepare: nothing,
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

func nothing(context.Context, *world) error { return nil }

func answerOf(result any, err error) answer {
	if err != nil {
		status, known := map[metering.Code]int{
			metering.Unavailable: http.StatusServiceUnavailable, metering.NotFound: http.StatusNotFound, metering.Invalid: http.StatusBadRequest,
		}[metering.CodeOf(err)]
		if !known {
			status = http.StatusInternalServerError
		}
		return answer{status, err.Error()}
	}
	body, err := json.Marshal(result)
	if err != nil {
		return answer{http.StatusInternalServerError, err.Error()}
	}
	return answer{http.StatusOK, string(body)}
}

func (a answer) err() error {
	if a.status != http.StatusOK {
		return fmt.Errorf("%d %s", a.status, a.body)
	}
	return nil
}

// world is an organization with its items, in a table that it shares with others.
type world struct {
	client    *dynamodb.Client
	tableName string
	table     *table.Table
	org       string
	keys      [2]auth.Hash
	times     []time.Time // of its clock, the last being now
	requests  func() []tabletest.Request
	operation operation // that is tested in it
	read      []string  // by readOn
}

// begins is the time at which every world starts: late enough that DynamoDB Local, which uses the
// real time, does not delete what expires.
var begins = time.Date(2099, 7, 29, 15, 51, 28, 71_000_000, time.UTC)

func newWorld(client *dynamodb.Client, tableName string) *world {
	return &world{
		client: client, tableName: tableName, table: table.New(client, tableName), times: []time.Time{begins},
		org: string(auth.New()), keys: [2]auth.Hash{auth.New().Hash(), auth.New().Hash()},
	}
}

func (w *world) now() time.Time { return w.times[len(w.times)-1] }

func (w *world) record(i int) *auth.Record {
	return &auth.Record{
		Hash: w.keys[i], Organization: w.org, Scopes: auth.Read | auth.Write, Label: "key " + strconv.Itoa(i), CreationTime: begins, CreatedBy: "operator",
	}
}

// put imports groups and returns which of them were stored.
func (w *world) put(ctx context.Context, over *table.Table, ids ...string) answer {
	stored := map[string]bool{}
	for i, id := range ids {
		group, err := wire.DecodeGroup(fmt.Appendf(nil, `{"id": %q, "organizationID": %q, "buyerID": "b", "entitlementID": "e", "partner": "AWS", "status": "CREATED", "creationTime": %q}`,
			id, w.org, metering.FormatTime(begins.Add(-time.Duration(i)*time.Minute))))
		if err == nil {
			stored[id], err = over.Put(ctx, &group)
		}
		if err != nil {
			return answerOf(nil, err)
		}
	}
	return answerOf(stored, nil)
}

// readOn reads a list to its end, as a client does that repeats a request a second later if it has
// to.
func (w *world) readOn(ctx context.Context, over *table.Table, filter string) answer {
	w.times = append(w.times, w.now().Add(time.Second))
	for {
		got := w.send(ctx, over, "GET", "usageRecordGroup?"+filter+"&offset="+strconv.Itoa(len(w.read)), "")
		if got.err() != nil {
			return got
		}
		var page struct {
			NextOffset        int
			UsageRecordGroups []struct{ ID string }
		}
		if err := json.Unmarshal([]byte(got.body), &page); err != nil {
			return answerOf(nil, err)
		}
		for _, g := range page.UsageRecordGroups {
			w.read = append(w.read, g.ID)
		}
		if page.NextOffset == 0 {
			return answerOf(w.read, nil)
		}
		if page.NextOffset != len(w.read) {
			return answerOf(nil, fmt.Errorf("after %q nextOffset is %d", w.read, page.NextOffset))
		}
	}
}

// send sends a request to the API on that table, with a key that has all permissions.
func (w *world) send(ctx context.Context, over *table.Table, method, path, body string) answer {
	return w.sendIf(ctx, over, "", method, path, body)
}

// sendIf is send with If-Match, unless ifMatch is empty.
func (w *world) sendIf(ctx context.Context, over *table.Table, ifMatch, method, path, body string) answer {
	api := &httpapi.API{
		Table: over, Log: slog.New(slog.DiscardHandler), Now: w.now, CountUnits: table.CountUnits,
		Authenticate: func(*http.Request) (auth.Principal, error) {
			return auth.Principal{Organization: metering.OrgID(w.org), KeyID: "0123456789abcdef", Scopes: auth.Admin}, nil
		},
	}
	if w.operation.hasty {
		api.ListFor = time.Nanosecond
	}
	request := httptest.NewRequestWithContext(ctx, method, "/org/"+w.org+"/"+path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	if ifMatch != "" {
		request.Header.Set("If-Match", ifMatch)
	}
	got := httptest.NewRecorder()
	api.Handler().ServeHTTP(got, request)
	if got.Code == http.StatusServiceUnavailable && got.Header().Get("Retry-After") == "" {
		return answer{http.StatusInternalServerError, "a 503 without Retry-After"}
	}
	return answer{got.Code, got.Header().Get("ETag") + got.Body.String()}
}

// items are all that is stored in the partitions requested so far; for an operation that only
// reads, without checkpoints.
func (w *world) items(ctx context.Context) (map[string]string, error) {
	partitions := map[string]bool{}
	for _, request := range w.requests() {
		for _, access := range request.Accesses {
			for _, partition := range access.Partitions {
				partitions[partition] = partitions[partition] || access.Index == ""
			}
		}
	}
	all := map[string]string{}
	for partition, ofTable := range partitions {
		if !ofTable || w.operation.reads && strings.Contains(partition, "#PAGE#") {
			continue
		}
		out, err := w.client.Query(ctx, &dynamodb.QueryInput{
			TableName: &w.tableName, ConsistentRead: aws.Bool(true), KeyConditionExpression: aws.String("PK = :pk"),
			ExpressionAttributeValues: map[string]types.AttributeValue{":pk": &types.AttributeValueMemberS{Value: partition}},
		})
		if err != nil {
			return nil, err
		}
		for _, item := range out.Items {
			text, err := json.Marshal(item)
			if err != nil {
				return nil, err
			}
			var key struct{ PK, SK struct{ Value string } }
			if err := json.Unmarshal(text, &key); err != nil {
				return nil, err
			}
			all[key.PK.Value+" "+key.SK.Value] = string(text)
		}
	}
	return all, nil
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
		}
		plain, err := json.Marshal(item)
		if err != nil {
			panic(err)
		}
		all[w.plainText(key)] = w.plainText(string(plain))
	}
	return all
}

func (w *world) plainText(text string) string {
	pairs := []string{w.org, "ORGANIZATION"}
	for i, key := range w.keys {
		inJSON := strings.ReplaceAll(fmt.Sprintf("%d", key[:]), " ", ",")
		pairs = append(pairs, key.String(), fmt.Sprint("KEY", i), key.ID(), fmt.Sprint("ID", i), inJSON, fmt.Sprint("HASH", i))
	}
	for _, at := range w.times[1:] {
		for _, later := range []time.Duration{0, time.Hour} {
			pairs = append(pairs, metering.FormatTime(at.Add(later)), metering.FormatTime(begins.Add(later)))
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
