package tabletest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/marketmeter/marketmeter"
)

// Request is one request to DynamoDB as it was sent. A retry is another Request.
type Request struct {
	Action   string   // DynamoDB's name of it: "Query"
	Accesses []Access // one, except in transactions and batches

	// StartKey and Written are the values of attributes that are a partition key of the table or of
	// an index. StartKey has those of the key after which the request continues, by attribute.
	// Written has those of all that it writes.
	StartKey map[string]string
	Written  []string

	Body []byte

	// Unclear is the error if a part of the request could not be read: then the fields above are
	// not reliable.
	Unclear error
}

// Access is the access of a request to one table or index, in the terms of a policy.
type Access struct {
	Action     string // "PutItem", in a transaction too
	Table      string
	Index      string   // empty is the table itself
	Partitions []string // the values of the partition key; none is every partition
	Attributes []string // the attributes that it names
	Returns    string   // its ReturnValues
}

type record struct {
	mu       sync.Mutex
	requests []Request
}

type recordKey struct{}

// Record returns a context, and a function that returns the requests sent so far by calls under it
// over the clients of this package. A Record under another replaces it.
func Record(ctx context.Context) (recording context.Context, requests func() []Request) {
	r := new(record)
	return context.WithValue(ctx, recordKey{}, r), func() []Request {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.Clone(r.requests)
	}
}

// Recorded returns a transport for NewClient whose requests are recorded.
func Recorded(next http.RoundTripper) http.RoundTripper { return recorder{next: next} }

// recorder adds requests to the record of their context. If the context has no record, it calls
// stray, unless that is nil.
type recorder struct {
	next  http.RoundTripper
	stray func(Request)
}

func (t recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	r, recorded := request.Context().Value(recordKey{}).(*record)
	if !recorded && t.stray == nil {
		return t.next.RoundTrip(request)
	}
	body, err := io.ReadAll(request.Body)
	request.Body.Close()
	if err != nil {
		return nil, err
	}
	sent := readRequest(request.Header.Get("X-Amz-Target"), body)
	if recorded {
		r.mu.Lock()
		r.requests = append(r.requests, sent)
		r.mu.Unlock()
	} else {
		t.stray(sent)
	}
	request = request.Clone(request.Context())
	request.Body = io.NopCloser(bytes.NewReader(body))
	return t.next.RoundTrip(request)
}

// Watched returns a transport for NewClient that fails t on a request without a Record: such a
// request has lost the context of its caller.
func Watched(t testing.TB) http.RoundTripper {
	return recorder{transport, func(r Request) { t.Errorf("a request to DynamoDB under no record: %s %s", r.Action, r.Body) }}
}

// wire is the JSON of a request of any action: members of the same name mean the same in each.
type wire struct {
	TableName, IndexName                     string
	Key, Item, ExclusiveStartKey             item
	KeyConditionExpression, UpdateExpression string
	ConditionExpression, FilterExpression    string
	ProjectionExpression, ReturnValues       string
	ExpressionAttributeNames                 map[string]string
	ExpressionAttributeValues                item

	TransactItems []map[string]wire
	RequestItems  map[string]json.RawMessage
}

// item holds the string attributes, such as all keys; others are empty.
type item map[string]struct{ S string }

func readRequest(target string, body []byte) Request {
	_, action, _ := strings.Cut(target, ".")
	r := Request{Action: action, Body: body}
	var w wire
	if r.Unclear = json.Unmarshal(body, &w); r.Unclear != nil {
		return r
	}
	r.StartKey = w.ExclusiveStartKey.partitions()
	switch action {
	case "TransactWriteItems", "TransactGetItems":
		actions := map[string]string{
			"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem", "Get": "GetItem",
		}
		for _, part := range w.TransactItems {
			for kind, w := range part {
				r.add(actions[kind], w)
			}
		}
	case "BatchGetItem", "BatchWriteItem":
		for table, part := range w.RequestItems {
			r.addBatch(action, table, part)
		}
	default:
		r.add(action, w)
	}
	return r
}

func (r *Request) add(action string, w wire) {
	a := Access{Action: action, Table: w.TableName, Index: w.IndexName, Attributes: w.attributes(), Returns: w.ReturnValues}
	switch action {
	case "Query":
		hash, ok := hashes()[w.IndexName]
		if !ok {
			r.unclear("%s is no index of template.yaml", w.IndexName)
		}
		a.Partitions = w.equalTo(hash)
	case "GetItem", "DeleteItem", "ConditionCheckItem", "UpdateItem":
		a.Partitions = []string{w.Key[hashes()[""]].S}
	case "PutItem":
		a.Partitions = []string{w.Item[hashes()[""]].S}
	case "Scan": // every partition
	case "DescribeTable": // no item
	default:
		r.unclear("nothing is known here of the action %s", action)
	}
	r.Accesses = append(r.Accesses, a)
	r.Written = slices.AppendSeq(r.Written, maps.Values(w.Item.partitions()))
	for attribute, value := range w.sets() {
		if !slices.Contains(slices.Collect(maps.Values(hashes())), attribute) {
			continue
		}
		v, ok := w.ExpressionAttributeValues[value]
		if !ok {
			r.unclear("%s is set to %s", attribute, value)
		}
		r.Written = append(r.Written, v.S)
	}
}

func (r *Request) addBatch(action, table string, part json.RawMessage) {
	a := Access{Action: action, Table: table}
	var get struct{ Keys []item }
	var write []struct {
		PutRequest    struct{ Item item }
		DeleteRequest struct{ Key item }
	}
	if action == "BatchGetItem" {
		r.unclearIf(json.Unmarshal(part, &get))
	} else {
		r.unclearIf(json.Unmarshal(part, &write))
	}
	for _, key := range get.Keys {
		a.Partitions = append(a.Partitions, key[hashes()[""]].S)
	}
	for _, w := range write {
		a.Partitions = append(a.Partitions, w.PutRequest.Item[hashes()[""]].S+w.DeleteRequest.Key[hashes()[""]].S)
		r.Written = slices.AppendSeq(r.Written, maps.Values(w.PutRequest.Item.partitions()))
	}
	r.Accesses = append(r.Accesses, a)
}

func (r *Request) unclear(format string, a ...any) { r.unclearIf(fmt.Errorf(format, a...)) }

func (r *Request) unclearIf(err error) {
	if r.Unclear == nil {
		r.Unclear = err
	}
}

var equals = regexp.MustCompile(`(#?\w+)\s*=\s*(:\w+)`)

// equalTo returns the values that the key condition requires of the attribute.
func (w *wire) equalTo(attribute string) (values []string) {
	for _, m := range equals.FindAllStringSubmatch(w.KeyConditionExpression, -1) {
		if w.name(m[1]) == attribute {
			values = append(values, w.ExpressionAttributeValues[m[2]].S)
		}
	}
	return values
}

var assigns = regexp.MustCompile(`(#?\w+)\s*=\s*([^,\s]+)`)

// sets returns the attributes that the update expression sets, each with its new value.
func (w *wire) sets() map[string]string {
	all := map[string]string{}
	for _, m := range assigns.FindAllStringSubmatch(w.UpdateExpression, -1) {
		all[w.name(m[1])] = m[2]
	}
	return all
}

var (
	paths    = regexp.MustCompile(`[#:]?\w+(\[\d+\]|\.#?\w+)*\s*\(?`)
	keywords = []string{"SET", "REMOVE", "ADD", "DELETE", "AND", "OR", "NOT", "IN", "BETWEEN"}
)

// attributes returns the names in the keys, the item and the expressions, in order.
func (w *wire) attributes() []string {
	all := map[string]bool{}
	for _, i := range []item{w.Key, w.Item} {
		for name := range i {
			all[name] = true
		}
	}
	for _, expression := range []string{
		w.KeyConditionExpression, w.UpdateExpression, w.ConditionExpression, w.FilterExpression, w.ProjectionExpression,
	} {
		for _, path := range paths.FindAllString(expression, -1) {
			path = strings.TrimRight(path, " ")
			if strings.HasPrefix(path, ":") || strings.HasSuffix(path, "(") || slices.Contains(keywords, strings.ToUpper(path)) {
				continue // a value, a function, or neither
			}
			first, _, _ := strings.Cut(path, ".")
			first, _, _ = strings.Cut(first, "[")
			all[w.name(first)] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// name resolves a placeholder.
func (w *wire) name(in string) string {
	if name, ok := w.ExpressionAttributeNames[in]; ok {
		return name
	}
	return in
}

// partitions are the attributes that are a partition key of the table or of an index.
func (i item) partitions() map[string]string {
	all := map[string]string{}
	for _, attribute := range hashes() {
		if value, ok := i[attribute]; ok {
			all[attribute] = value.S
		}
	}
	return all
}

// hashes are the partition keys' attributes by index, the table's own by "", as in template.yaml.
var hashes = sync.OnceValue(func() map[string]string {
	type keys []struct {
		AttributeName string `yaml:"AttributeName"`
		KeyType       string `yaml:"KeyType"`
	}
	var template struct {
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(marketmeter.Template, &template); err != nil {
		panic(err)
	}
	all := map[string]string{}
	add := func(index string, keys keys) {
		for _, k := range keys {
			if k.KeyType == "HASH" {
				all[index] = k.AttributeName
			}
		}
	}
	for _, resource := range template.Resources {
		if resource.Type != "AWS::DynamoDB::Table" {
			continue
		}
		var table struct {
			KeySchema keys `yaml:"KeySchema"`
			Indexes   []struct {
				IndexName string `yaml:"IndexName"`
				KeySchema keys   `yaml:"KeySchema"`
			} `yaml:"GlobalSecondaryIndexes"`
		}
		if err := resource.Properties.Decode(&table); err != nil {
			panic(err)
		}
		add("", table.KeySchema)
		for _, index := range table.Indexes {
			add(index.IndexName, index.KeySchema)
		}
	}
	return all
})
