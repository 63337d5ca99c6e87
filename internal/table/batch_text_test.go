package table

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/table/listjson"
)

// batchTexts is what listjson.EachText reads of a response: for each item its SK and entitlement.
type batchTexts struct {
	items       [][2]string // an attribute that the item does not have is "-"
	unprocessed []string
	units       float64
}

func readBatchTexts(response []byte) (read batchTexts, err error) {
	beside, err := listjson.EachText(response, []string{attrSK, attrJSON}, func(values [][]byte) error {
		item := [2]string{"-", "-"}
		for i, raw := range values {
			if raw == nil {
				continue
			}
			text, err := listjson.Unquote(raw)
			if err != nil {
				return err
			}
			item[i] = string(text)
		}
		read.items = append(read.items, item)
		return nil
	})
	read.unprocessed, read.units = beside.Unprocessed, beside.Units
	return read, err
}

// batchTextsBySDK is the same by the SDK's decoding. ok is false if that refuses the response or if
// an attribute has another type.
func batchTextsBySDK(t testing.TB, response []byte) (read batchTexts, ok bool) {
	client := dynamoclient.New(dynamoclient.Options{
		Region: "us-east-1", Transport: replay(response), Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
	})
	out, err := client.BatchGetItem(t.Context(), &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
		"t": {Keys: []map[string]types.AttributeValue{itemKey("p", "s")}},
	}})
	if err != nil || len(out.Responses) > 1 || len(out.UnprocessedKeys) > 1 {
		return read, false
	}
	ok = true
	textIn := func(item map[string]types.AttributeValue, name string) string {
		switch value := item[name].(type) {
		case nil:
			return "-"
		case *types.AttributeValueMemberS:
			return value.Value
		default:
			ok = false
			return ""
		}
	}
	for _, items := range out.Responses {
		for _, item := range items {
			read.items = append(read.items, [2]string{textIn(item, attrSK), textIn(item, attrJSON)})
		}
	}
	for _, later := range out.UnprocessedKeys {
		for _, key := range later.Keys {
			read.unprocessed = append(read.unprocessed, textIn(key, attrSK))
		}
	}
	for i := range out.ConsumedCapacity {
		read.units += aws.ToFloat64(out.ConsumedCapacity[i].CapacityUnits)
	}
	return read, ok
}

const wholeBatch = `{"Responses":{"t":[{"SK":{"S":"E#1"},"entitlement":{"S":"{\"a\":\"\\u00e9\ud83d\ude00\"}"},"_op":{"B":"aGk="},"version":{"N":"3"}},` +
	`{"entitlement":{"S":""},"SK":{"S":"E#2"},"more":{"M":{"a":{"L":[{"NULL":true}]}}}},{"SK":{"S":"CONNECTION#AWS"}}]},` +
	`"UnprocessedKeys":{"t":{"Keys":[{"PK":{"S":"ORG#o"},"SK":{"S":"E#\u0033"}}],"ConsistentRead":true}},"ConsumedCapacity":[{"TableName":"t","CapacityUnits":4.5}]}`

func TestEachText_ReadsAsTheSDK(t *testing.T) {
	t.Parallel()
	got, err := readBatchTexts([]byte(wholeBatch))
	want, ok := batchTextsBySDK(t, []byte(wholeBatch))
	if err != nil || !ok || !slices.Equal(got.items, want.items) || !slices.Equal(got.unprocessed, want.unprocessed) || got.units != want.units || len(got.items) != 3 {
		t.Errorf("%+v, %v, and by the SDK %+v", got, err, want)
	}
	if got, err := readBatchTexts([]byte(`{"UnprocessedKeys":{"t":{"Keys":[{"SK":{"S":"a"},"PK":{"S":"p"}}]}}}`)); err != nil || len(got.unprocessed) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEachText_RefusesWhatIsNoResponse(t *testing.T) {
	t.Parallel()
	for cut := range len(wholeBatch) {
		if _, err := readBatchTexts([]byte(wholeBatch[:cut])); err == nil {
			t.Errorf("cut after %d bytes, it is taken", cut)
		}
	}
	for _, response := range []string{
		`{}`, `[]`, `{"UnprocessedKeys":{}}`, wholeBatch + "x", `{"Responses":{"t":[]},"Responses":{"t":[]}}`, `{"Responses":{"t":{}}}`,
		`{"Responses":{"t":[{"SK":{"S":"a"},"SK":{"S":"b"}}]}}`, `{"Responses":{"t":[{"entitlement":{"N":"1"}}]}}`,
		`{"Responses":{"t":[{"SK":{"S":"\ud800"}}]}}`, "{\"Responses\":{\"t\":[{\"SK\":{\"S\":\"\xff\"}}]}}", `{"Responses":{"t":[{"SK":{"S":"a","N":"1"}}]}}`,
		`{"Responses":{"t":[]},"UnprocessedKeys":{"t":{"Keys":[{"PK":{"S":"p"}}]}}}`,
	} {
		if got, err := readBatchTexts([]byte(response)); err == nil {
			t.Errorf("%s is read as %+v", response, got)
		}
	}
}

// FuzzEachText looks for a response that is taken although it is not JSON, or that the SDK reads
// otherwise.
func FuzzEachText(f *testing.F) {
	f.Add([]byte(wholeBatch))
	f.Add([]byte(`{"Responses":{"t":[]},"UnprocessedKeys":{}}`))
	f.Add([]byte(` { "Responses" : { "t" : [ { "SK" : { "S" : "a" } } ] } , "other" : [ null , true , 1e3 ] } `))
	f.Fuzz(func(t *testing.T, response []byte) {
		got, err := readBatchTexts(response)
		if err != nil {
			return
		}
		if !json.Valid(response) {
			t.Fatal("taken, and no JSON")
		}
		want, ok := batchTextsBySDK(t, response)
		if ok && (!slices.Equal(got.items, want.items) || !slices.Equal(got.unprocessed, want.unprocessed) || got.units != want.units) {
			t.Fatalf("the SDK reads %+v and EachText %+v", want, got)
		}
	})
}
