package table_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// newKey returns the record of a new key with every member that a new key can have.
func newKey(org string) *auth.Record {
	return &auth.Record{
		Hash: auth.New().Hash(), Organization: org, Scopes: auth.Read | auth.Config, Label: "the label of " + org,
		CreationTime: now, ExpiryTime: now.Add(time.Hour), CreatedBy: "an operator",
	}
}

func addKey(t *testing.T, tbl *table.Table, r *auth.Record) {
	t.Helper()
	if err := tbl.AddAPIKey(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// wantKeys checks each key by its hash and all of them by their organization.
func wantKeys(t *testing.T, tbl *table.Table, org string, want ...auth.Record) {
	t.Helper()
	for _, r := range want {
		got, err := tbl.APIKey(t.Context(), r.Hash)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, r, got)
	}
	got, err := tbl.APIKeys(t.Context(), metering.OrgID(org))
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, want, got)
}

func TestAPIKeys_AreReadBack(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	first, second, others := newKey("o1"), newKey("o1"), newKey("o1#KEY#")
	put(t, tbl, group("g1", metering.StatusCreated)) // and other items in the partition
	if err := tbl.RaiseSerial(t.Context(), "o1", 7); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tbl.ChangeConfig(t.Context(), "o1", now, setFlag("AWS")); err != nil {
		t.Fatal(err)
	}
	second.CreationTime, second.ExpiryTime, second.Label, second.CreatedBy = now.Add(time.Millisecond), time.Time{}, "", ""
	for _, r := range []*auth.Record{second, others, first} {
		addKey(t, tbl, r)
	}
	wantKeys(t, tbl, "o1", *first, *second)
	wantKeys(t, tbl, "o1#KEY#", *others)
	wantKeys(t, tbl, "o2")
	_, err := tbl.APIKey(t.Context(), auth.New().Hash())
	wantCode(t, err, metering.NotFound)
}

func TestAddAPIKey_HashIsStoredOnce(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	first := newKey("o1")
	addKey(t, tbl, first)
	again := *first
	again.Organization, again.Scopes = "o2", auth.Admin
	if err := tbl.AddAPIKey(t.Context(), &again); err == nil {
		t.Error("a key was taken over")
	}
	wantKeys(t, tbl, "o1", *first)
	wantKeys(t, tbl, "o2")
}

// setKey changes an item of a key to what another version might store, or to a damaged item.
func setKey(t *testing.T, client *dynamodb.Client, name string, hash auth.Hash, expression string, value types.AttributeValue) {
	t.Helper()
	var values map[string]types.AttributeValue
	if value != nil {
		values = map[string]types.AttributeValue{":v": value}
	}
	if _, err := client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: &name, UpdateExpression: &expression, ExpressionAttributeValues: values,
		Key: map[string]types.AttributeValue{
			"PK": &types.AttributeValueMemberS{Value: "KEY#" + hash.String()}, "SK": &types.AttributeValueMemberS{Value: "KEY"},
		},
	}); err != nil {
		t.Fatal(err)
	}
}

// A place that leads to none of the organization's keys is named, and reveals nothing of another
// organization's key.
func TestAPIKeys_DamagedPlaceIsNamed(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	own, others, missing := newKey("o1"), newKey("o2"), auth.New().Hash()
	addKey(t, tbl, own)
	addKey(t, tbl, others)
	for _, sk := range []string{
		"KEY#" + others.Hash.String(), "KEY#" + missing.String(), "KEY#", "KEY#0123456789abcdef", "KEY#" + strings.ToUpper(own.Hash.String()),
	} {
		if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: map[string]types.AttributeValue{
			"PK": &types.AttributeValueMemberS{Value: "ORG#o1"}, "SK": &types.AttributeValueMemberS{Value: sk},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := tbl.APIKeys(t.Context(), "o1")
	if err != nil {
		t.Fatal(err)
	}
	place := func(sk string) auth.Record {
		return auth.Record{Organization: "o1", Unreadable: []string{"record", `SK "` + sk + `"`}}
	}
	none := func(hash auth.Hash) auth.Record {
		return auth.Record{Hash: hash, Organization: "o1", Unreadable: []string{"record"}}
	}
	want := []auth.Record{
		*own, place("KEY#"), place("KEY#0123456789abcdef"), place("KEY#" + strings.ToUpper(own.Hash.String())), none(others.Hash), none(missing),
	}
	for _, records := range [][]auth.Record{want, keys} {
		slices.SortFunc(records, func(a, b auth.Record) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	wantSame(t, want, keys)
	found, err := tbl.FindAPIKeys(t.Context(), "o1", own.Hash.ID())
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, []auth.Hash{own.Hash}, found)
	_, err = tbl.RevokeAPIKey(t.Context(), "o1", others.Hash, now, "")
	wantCode(t, err, metering.NotFound)
}

func TestAPIKeys_MoreThanTwoBatches(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var want []auth.Record
	for i := range 201 { // one more than two BatchGetItem return
		r := newKey("o1")
		r.CreationTime = now.Add(time.Duration(i) * time.Second)
		addKey(t, tbl, r)
		want = append(want, *r)
	}
	got, err := tbl.APIKeys(t.Context(), "o1")
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, want, got)
}

func TestAPIKeyUsed_OnceAnHour(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	r := newKey("o1")
	addKey(t, tbl, r)
	for _, c := range []struct{ noted, want time.Time }{
		{now, now}, {now, now}, {now.Add(time.Hour), now.Add(time.Hour)}, {now, now.Add(time.Hour)},
	} {
		if err := tbl.APIKeyUsed(t.Context(), r.Hash, c.noted); err != nil {
			t.Fatal(err)
		}
		r.LastUsedTime = c.want
		wantKeys(t, tbl, "o1", *r)
	}
	unknown := auth.New().Hash()
	if err := tbl.APIKeyUsed(t.Context(), unknown, now); err != nil {
		t.Error(err)
	}
	_, err := tbl.APIKey(t.Context(), unknown) // nothing was created
	wantCode(t, err, metering.NotFound)
}

func TestRevokeAPIKey_StaysRevoked(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	r := newKey("o1")
	addKey(t, tbl, r)

	_, err := tbl.RevokeAPIKey(t.Context(), "o2", r.Hash, now, "of another organization")
	wantCode(t, err, metering.NotFound)
	wantKeys(t, tbl, "o1", *r)

	r.RevocationTime, r.RevokedBy = now, "first"
	for i, by := range []string{"first", "second"} {
		got, err := tbl.RevokeAPIKey(t.Context(), "o1", r.Hash, now.Add(time.Duration(i)*time.Hour), by)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, *r, got)
	}
	wantKeys(t, tbl, "o1", *r)

	wantCode(t, tbl.RotateAPIKey(t.Context(), r.Hash, now, newKey("o1")), metering.NotFound)
	wantKeys(t, tbl, "o1", *r)
	unknown := auth.New().Hash()
	_, err = tbl.RevokeAPIKey(t.Context(), "o1", unknown, now, "")
	wantCode(t, err, metering.NotFound)
	_, err = tbl.APIKey(t.Context(), unknown)
	wantCode(t, err, metering.NotFound)
}

func TestRotateAPIKey_IsAllOrNothing(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	old, next, strange := newKey("o1"), newKey("o1"), newKey("o2")
	addKey(t, tbl, old)
	addKey(t, tbl, strange)
	next.CreationTime = now.Add(time.Second)

	wantCode(t, tbl.RotateAPIKey(t.Context(), strange.Hash, now, next), metering.NotFound)
	wantCode(t, tbl.RotateAPIKey(t.Context(), auth.New().Hash(), now, next), metering.NotFound)
	wantKeys(t, tbl, "o1", *old)
	wantKeys(t, tbl, "o2", *strange)

	if err := tbl.RotateAPIKey(t.Context(), old.Hash, now.Add(time.Minute), next); err != nil {
		t.Fatal(err)
	}
	old.ExpiryTime, old.ReplacedBy = now.Add(time.Minute), next.Hash.ID()
	wantKeys(t, tbl, "o1", *old, *next)

	// Another rotation that has read the old key before this one neither extends it nor creates a
	// third key.
	wantCode(t, tbl.RotateAPIKey(t.Context(), old.Hash, now.Add(time.Hour), newKey("o1")), metering.NotFound)
	wantKeys(t, tbl, "o1", *old, *next)
}

// A change whose response is lost is neither lost nor repeated, and one that conflicts with another
// at the same time is retried.
func TestKeyChanges_FaultIsRetried(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for _, kind := range tabletest.Kinds {
		if kind.Name != "lost" && kind.Name != "in conflict" {
			continue
		}
		faulty := func() *table.Table {
			return table.New(tabletest.NewClient(tabletest.Recorded(tabletest.Planned(func(try int, request *http.Request) tabletest.Fault {
				if try > 0 {
					return nil
				}
				return kind.Of(request)
			}))), name)
		}
		old, next := newKey(kind.Name), newKey(kind.Name)
		next.CreationTime = now.Add(time.Second)
		if err := faulty().AddAPIKey(t.Context(), old); err != nil {
			t.Fatalf("%s: add: %v", kind.Name, err)
		}
		wantKeys(t, tbl, kind.Name, *old)
		if err := faulty().RotateAPIKey(t.Context(), old.Hash, now.Add(time.Minute), next); err != nil {
			t.Fatalf("%s: rotate: %v", kind.Name, err)
		}
		if err := faulty().APIKeyUsed(t.Context(), old.Hash, now); err != nil {
			t.Fatalf("%s: use: %v", kind.Name, err)
		}
		if _, err := faulty().RevokeAPIKey(t.Context(), metering.OrgID(kind.Name), old.Hash, now, "me"); err != nil {
			t.Fatalf("%s: revoke: %v", kind.Name, err)
		}
		old.ExpiryTime, old.ReplacedBy, old.LastUsedTime, old.RevocationTime, old.RevokedBy = now.Add(time.Minute), next.Hash.ID(), now, now, "me"
		wantKeys(t, tbl, kind.Name, *old, *next)
	}
}

// Keys that DynamoDB leaves unprocessed in a response are requested again.
func TestAPIKeys_UnprocessedAreRequestedAgain(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	first, second := newKey("o1"), newKey("o1")
	second.CreationTime = now.Add(time.Second)
	addKey(t, tbl, first)
	addKey(t, tbl, second)

	got, err := table.New(tabletest.NewClient(halfBatches{}), name).APIKeys(t.Context(), "o1")
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, []auth.Record{*first, *second}, got)
}

// halfBatches leaves all but the first key of a BatchGetItem unprocessed, as DynamoDB does if a
// response is too large or the table is throttled.
type halfBatches struct{}

func (halfBatches) RoundTrip(r *http.Request) (*http.Response, error) {
	if tabletest.Action(r) != "BatchGetItem" {
		return http.DefaultTransport.RoundTrip(r)
	}
	type keys struct {
		Keys           []json.RawMessage
		ConsistentRead bool
	}
	var asked struct{ RequestItems map[string]keys }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		return nil, err
	}
	later := map[string]keys{}
	for table, of := range asked.RequestItems {
		if rest := of.Keys[1:]; len(rest) > 0 {
			later[table] = keys{rest, true}
		}
		asked.RequestItems[table] = keys{of.Keys[:1], true}
	}
	body, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	answer["UnprocessedKeys"] = later
	if body, err = json.Marshal(answer); err != nil {
		return nil, err
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	response.Header.Set("X-Amz-Crc32", strconv.Itoa(int(crc32.ChecksumIEEE(body))))
	return response, nil
}

// unreadable are changes of a key's item that make an attribute unreadable.
var unreadable = []struct {
	attribute, expression string
	value                 types.AttributeValue
}{
	{"scopes", "SET scopes = :v", &types.AttributeValueMemberS{Value: ""}},
	{"scopes", "SET scopes = :v", &types.AttributeValueMemberS{Value: "read,"}},
	{"scopes", "SET scopes = :v", &types.AttributeValueMemberSS{Value: []string{"read", "write"}}},
	{"scopes", "REMOVE scopes", nil},
	{"organizationID", "SET organizationID = :v", &types.AttributeValueMemberN{Value: "1"}},
	{"organizationID", "SET organizationID = :v", &types.AttributeValueMemberS{Value: ""}},
	{"organizationID", "SET organizationID = :v", &types.AttributeValueMemberS{Value: "a/b"}},
	{"organizationID", "REMOVE organizationID", nil},
	{"expiryTime", "SET expiryTime = :v", &types.AttributeValueMemberS{Value: "never"}},
	{"expiryTime", "SET expiryTime = :v", &types.AttributeValueMemberS{Value: "0001-01-01T00:00:00.000Z"}},
	{"lastUsedTime", "SET lastUsedTime = :v", &types.AttributeValueMemberN{Value: "1"}},
	{"creationTime", "SET creationTime = :v", &types.AttributeValueMemberS{Value: "2026-13-01T00:00:00.000Z"}},
	{"creationTime", "REMOVE creationTime", nil},
	{"label", "SET label = :v", &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{}}},
	{"label", "REMOVE label", nil},
	{"createdBy", "SET createdBy = :v", &types.AttributeValueMemberL{}},
	{"revokedBy", "SET revokedBy = :v", &types.AttributeValueMemberBOOL{Value: true}},
	{"replacedBy", "SET replacedBy = :v", &types.AttributeValueMemberN{Value: "1"}},
}

// The attributes of a key that can't be read are named. The key grants no access, is listed beside
// the others, and can be revoked.
func TestAPIKeys_UnreadableRecordIsInNobodysWay(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for i, c := range unreadable {
		org := fmt.Sprintf("o%d", i)
		good, bad, key := newKey(org), newKey(org), auth.New()
		bad.Hash = key.Hash()
		addKey(t, tbl, good)
		addKey(t, tbl, bad)
		setKey(t, client, name, bad.Hash, c.expression, c.value)

		checker := auth.Authenticator{Records: tbl, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
		_, err := checker.Authenticate(t.Context(), "Key "+string(key))
		if wantCode(t, err, metering.Internal); !strings.Contains(fmt.Sprint(err), c.attribute) {
			t.Errorf("%s: the error does not name %s: %v", c.expression, c.attribute, err)
		}
		records, err := tbl.APIKeys(t.Context(), metering.OrgID(org))
		if err != nil || len(records) != 2 {
			t.Fatalf("%s: %v, %v", c.expression, records, err)
		}
		for _, r := range records {
			if r.Hash == good.Hash {
				wantSame(t, *good, r)
			} else if r.Hash != bad.Hash || r.State(now) != auth.Unreadable || !slices.Equal(r.Unreadable, []string{c.attribute}) {
				t.Errorf("%s: it is %+v", c.expression, r)
			}
		}
		for range 2 {
			revoked, err := tbl.RevokeAPIKey(t.Context(), metering.OrgID(org), bad.Hash, now, "me")
			if err != nil || revoked.State(now) != auth.Revoked || !revoked.RevocationTime.Equal(now) || revoked.RevokedBy != "me" {
				t.Errorf("%s: revoked it is %+v, %v", c.expression, revoked, err)
			}
		}
		_, err = checker.Authenticate(t.Context(), "Key "+string(key))
		wantCode(t, err, metering.Unauthenticated)
	}
}

// A key whose revocation has no time is still revoked.
func TestAPIKeys_RevocationWithoutATimeIsOne(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	key, r := auth.New(), newKey("o1")
	r.Hash = key.Hash()
	addKey(t, tbl, r)
	setKey(t, client, name, r.Hash, "SET revocationTime = :v", &types.AttributeValueMemberNULL{Value: true})
	checker := auth.Authenticator{Records: tbl, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
	_, err := checker.Authenticate(t.Context(), "Key "+string(key))
	wantCode(t, err, metering.Unauthenticated)
	if !strings.HasSuffix(fmt.Sprint(err), "the key "+r.Hash.ID()+" was revoked") {
		t.Error(err)
	}
	r.Unreadable = []string{"revocationTime"}
	got, err := tbl.RevokeAPIKey(t.Context(), "o1", r.Hash, now, "me")
	if err != nil || got.State(now) != auth.Revoked {
		t.Errorf("%+v, %v", got, err)
	}
	wantKeys(t, tbl, "o1", *r)
}

// Scopes and attributes of a newer version are named and allow nothing.
func TestAPIKeys_UnknownPartsAreNamed(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	r := newKey("o1")
	addKey(t, tbl, r)
	setKey(t, client, name, r.Hash, "SET scopes = :v", &types.AttributeValueMemberS{Value: "read, report,READ,config"})
	setKey(t, client, name, r.Hash, "SET team = :v, network = :v", &types.AttributeValueMemberL{})
	r.UnknownScopes, r.UnknownAttributes = "report,READ", []string{"network", "team"}
	wantKeys(t, tbl, "o1", *r)
	if identity := r.Principal(); identity.Scopes != auth.Read|auth.Config || identity.ScopeNames() != "read,config,report,READ" || r.State(now) != auth.Active {
		t.Errorf("%+v", identity)
	}
}

func TestEndAPIKey_EndsNoLaterThanBefore(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	forever, long, short, revoked := newKey("o1"), newKey("o1"), newKey("o1"), newKey("o1")
	forever.ExpiryTime = time.Time{}
	long.ExpiryTime = now.Add(2 * time.Hour)
	short.ExpiryTime = now.Add(time.Minute)
	ends := now.Add(time.Hour)
	for _, r := range []*auth.Record{forever, long, short, revoked} {
		addKey(t, tbl, r)
	}
	if _, err := tbl.RevokeAPIKey(t.Context(), "o1", revoked.Hash, now, "me"); err != nil {
		t.Fatal(err)
	}
	faulty, _ := tabletest.NewFaults(tabletest.Lose)
	for _, r := range []*auth.Record{forever, long} {
		wantCode(t, tbl.EndAPIKey(t.Context(), "o2", r.Hash, ends), metering.NotFound)
		for _, over := range []*table.Table{table.New(faulty, name), tbl} { // the first response is lost; then a repeated call
			if err := over.EndAPIKey(t.Context(), "o1", r.Hash, ends); err != nil {
				t.Error(err)
			}
		}
		got, err := tbl.APIKey(t.Context(), r.Hash)
		if r.ExpiryTime = ends; err != nil {
			t.Fatal(err)
		}
		wantSame(t, *r, got)
	}
	for _, hash := range []auth.Hash{short.Hash, revoked.Hash, auth.New().Hash()} {
		wantCode(t, tbl.EndAPIKey(t.Context(), "o1", hash, ends), metering.NotFound)
	}
	got, err := tbl.APIKey(t.Context(), short.Hash)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, *short, got)
}

// If noting the use of a key fails or hangs, the client still gets its response.
func TestAPIKeyUsed_FailureHoldsNothingUp(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	at := now.Add(34 * time.Minute)
	for what, fate := range map[string]func(*http.Request) (*http.Response, error){
		"failing": func(*http.Request) (*http.Response, error) { return nil, errors.New("no table") },
		"hanging": func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() },
	} {
		// A key that ends in less than two weeks is logged as a warning.
		soon, endsSoon := what == "failing", 14*24*time.Hour
		if soon {
			endsSoon -= time.Millisecond
		}
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			key := auth.New()
			record := newKey("o1")
			record.Hash, record.ExpiryTime = key.Hash(), at.Add(endsSoon)
			addKey(t, tbl, record)
			var log bytes.Buffer
			spoilt := dynamoclient.New(dynamoclient.Options{
				Region: "us-east-1", Endpoint: os.Getenv("DYNAMODB_ENDPOINT"), Transport: updates(fate),
				Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
			})
			checker := auth.Authenticator{
				Records: table.New(spoilt, name), Log: slog.New(slog.NewJSONHandler(&log, nil)), Now: func() time.Time { return at },
			}
			identity, err := checker.Authenticate(t.Context(), "Key "+string(key))
			if err != nil || identity != record.Principal() {
				t.Errorf("%v, %v", identity, err)
			}
			for _, text := range []string{"could not be noted", key.Hash().ID(), "o1"} {
				if !strings.Contains(log.String(), text) {
					t.Errorf("the log does not tell %q: %s", text, &log)
				}
			}
			if strings.Contains(log.String(), "ends soon") != soon {
				t.Errorf("it ends in %v: %s", endsSoon, &log)
			}
			if strings.Contains(log.String(), string(key)) {
				t.Error("the log contains the key")
			}
		})
	}
}

// updates is a transport that handles UpdateItem itself and passes all other requests on.
type updates func(*http.Request) (*http.Response, error)

func (u updates) RoundTrip(r *http.Request) (*http.Response, error) {
	if tabletest.Action(r) == "UpdateItem" {
		return u(r)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// The units are those of docs/data-model.md. Transactions are left out: DynamoDB Local counts them
// by rules of its own.
func TestCountUnits_CountsEachCall(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	old := newKey("o1")
	addKey(t, tbl, old)
	addKey(t, tbl, newKey("o1"))
	for _, c := range []struct {
		what        string
		call        func(ctx context.Context) error
		read, write float64
	}{
		{"put a group", func(ctx context.Context) error {
			_, err := tbl.Put(ctx, group("g1", metering.StatusCreated))
			return err
		}, 0, 5},
		{"count the groups", func(ctx context.Context) error { _, err := tbl.CountGroups(ctx, "o1"); return err }, 0.5, 0},
		{"read", func(ctx context.Context) error { _, err := tbl.APIKey(ctx, old.Hash); return err }, 1, 0},
		{"use", func(ctx context.Context) error { return tbl.APIKeyUsed(ctx, old.Hash, now) }, 0, 1},
		{"list", func(ctx context.Context) error { _, err := tbl.APIKeys(ctx, "o1"); return err }, 3, 0},
		{"find", func(ctx context.Context) error { _, err := tbl.FindAPIKeys(ctx, "o1", old.Hash.ID()); return err }, 1, 0},
		{"end", func(ctx context.Context) error { return tbl.EndAPIKey(ctx, "o1", old.Hash, now) }, 0, 1},
		{"revoke", func(ctx context.Context) error { _, err := tbl.RevokeAPIKey(ctx, "o1", old.Hash, now, ""); return err }, 0, 1},
	} {
		ctx, consumed := table.CountUnits(t.Context())
		if err := c.call(ctx); err != nil {
			t.Fatal(err)
		}
		if read, write := consumed(); read != c.read || write != c.write {
			t.Errorf("%s took %v and %v units; want %v and %v", c.what, read, write, c.read, c.write)
		}
	}
}
