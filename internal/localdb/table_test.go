package localdb_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func TestCreateTable_IsTheTemplates(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	answer, err := client.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"": keyNames(answer.Table.KeySchema)}
	for _, index := range answer.Table.GlobalSecondaryIndexes {
		got[*index.IndexName] = keyNames(index.KeySchema) + " " + string(index.Projection.ProjectionType)
	}
	want := map[string]string{
		"":              "PK SK",
		"byTime":        "PK _time ALL",
		"byStatus":      "_status _time ALL",
		"byBuyer":       "_buyer _time ALL",
		"byEntitlement": "_entitlement _time ALL",
		"byWork":        "_work _due KEYS_ONLY",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys and indexes (-want +got):\n%s", diff)
	}
	expiry, err := client.DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &name})
	if err != nil {
		t.Fatal(err)
	}
	if d := expiry.TimeToLiveDescription; aws.ToString(d.AttributeName) != "expiresAt" || d.TimeToLiveStatus != types.TimeToLiveStatusEnabled {
		t.Errorf("items expire by %s, which is %s; want expiresAt, ENABLED", aws.ToString(d.AttributeName), d.TimeToLiveStatus)
	}
}

func keyNames(keys []types.KeySchemaElement) string {
	var names []string
	for _, key := range keys {
		names = append(names, *key.AttributeName)
	}
	return strings.Join(names, " ")
}

func TestCreateTable_LeavesAnExistingOne(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	created, err := localdb.CreateTable(t.Context(), client, marketmeter.Template, name)
	if created || err != nil {
		t.Errorf("CreateTable of an existing table: %v, %v; want false, nil", created, err)
	}
}

// A table of an older version, with data, gets the indexes that it lacks.
func TestCreateTable_AddsMissingIndexes(t *testing.T) {
	t.Parallel()
	// A DynamoDB Local with the tables of other tests takes minutes to add an index.
	db, err := localdb.Start(t.Context(), localdb.Options{Jars: "../../.local", Say: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	client, name := db.Client(), "older"
	older := regexp.MustCompile(`(?m)^ +- \{AttributeName: _(work|due), .*\n|^ +- IndexName: byWork\n.*\n.*\n`).ReplaceAll(marketmeter.Template, nil)
	if created, err := localdb.CreateTable(t.Context(), client, older, name); !created || err != nil || bytes.Contains(older, []byte("_due")) {
		t.Fatalf("CreateTable of an older template: %v, %v\n%s", created, err, older)
	}
	item := map[string]types.AttributeValue{}
	for _, attribute := range []string{"PK", "SK", "_work", "_due"} {
		item[attribute] = &types.AttributeValueMemberS{Value: "a"}
	}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 2 { // two programs at once
		all.Go(func() {
			if created, err := localdb.CreateTable(t.Context(), client, marketmeter.Template, name); created || err != nil {
				t.Errorf("CreateTable: %v, %v; want false, nil", created, err)
			}
		})
	}
	all.Wait()
	found, err := client.Query(t.Context(), &dynamodb.QueryInput{
		TableName: &name, IndexName: aws.String("byWork"), KeyConditionExpression: aws.String("#work = :a"), ExpressionAttributeNames: map[string]string{"#work": "_work"},
		ExpressionAttributeValues: map[string]types.AttributeValue{":a": item["PK"]},
	})
	if err != nil || found.Count != 1 {
		t.Errorf("byWork has %d items, %v; want the one that was stored before", found.Count, err)
	}
}

func TestCreateTable_RefusesAnotherTable(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	for _, test := range []struct{ old, new, want string }{
		{"IndexName: byTime", "IndexName: byDay", "it has index byTime (PK HASH S, _time RANGE S) projecting ALL; the template has index byDay"},
		{"AttributeName: _time, AttributeType: S", "AttributeName: _time, AttributeType: N", "_time RANGE N"},
		{"ProjectionType: ALL", "ProjectionType: KEYS_ONLY", "projecting KEYS_ONLY"},
	} {
		template := strings.Replace(string(marketmeter.Template), test.old, test.new, 1)
		_, err := localdb.CreateTable(t.Context(), client, []byte(template), name)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "TABLE_NAME") {
			t.Errorf("with %q in the template: %v; want an error with %q and what to do", test.new, err, test.want)
		}
	}
}

// Each of its requests in turn is carried out, and its response stalls: the retry finds the result
// of the first attempt.
func TestCreateTable_RetriesAfterAStall(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	direct := localdb.NewClient(os.Getenv("DYNAMODB_ENDPOINT"))
	var all sync.WaitGroup
	stalled := make([]bool, 6)
	for nth := range stalled {
		name := "test-" + rand.Text()
		t.Cleanup(func() {
			_, err := direct.DeleteTable(context.WithoutCancel(t.Context()), &dynamodb.DeleteTableInput{TableName: &name})
			if err != nil {
				t.Errorf("deleting the table of this test: %v", err)
			}
		})
		all.Go(func() {
			endpoint, _ := tabletest.StallingProxy(t, func(n int) tabletest.Stall {
				if n != nth {
					return nil
				}
				stalled[nth] = true
				return tabletest.Stalls["after a byte of the body"]
			})
			if _, err := localdb.CreateTable(ctx, localdb.NewClient(endpoint), marketmeter.Template, name); err != nil {
				t.Errorf("the response to request %d stalls: %v", nth, err)
			}
			ttl, err := direct.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &name})
			if err != nil || ttl.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusEnabled {
				t.Errorf("the response to request %d stalls: items expire: %v, %v", nth, ttl, err)
			}
		})
	}
	all.Wait()
	if !stalled[2] {
		t.Errorf("that stalled: %v; want CreateTable, DescribeTimeToLive and UpdateTimeToLive at least", stalled)
	}
}

// No request is sent for these templates: the client's endpoint does not exist.
func TestCreateTable_RefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	client := localdb.NewClient("http://127.0.0.1:1")
	for _, test := range []struct{ old, new, want string }{
		{"BillingMode: PAY_PER_REQUEST", "BillingMode: PROVISIONED", "BillingMode"},
		{"Projection: {ProjectionType: ALL}", "Projects: {ProjectionType: ALL}", `"Projects"`},
		{"Projection: {ProjectionType: ALL}", "Projection: !If [A, B]", "Projection"},
		{"AttributeName: expiresAt", "Attribute: expiresAt", `"Attribute"`},
		{"Type: AWS::DynamoDB::Table", "Type: AWS::DynamoDB::GlobalTable", "there are 0 resources"},
		{"Type: AWS::Logs::LogGroup", "Type: AWS::DynamoDB::Table", "KmsKeyId"},
		{"      KeySchema:", "      LocalSecondaryIndexes: [{IndexName: x}]\n      KeySchema:", "local secondary"},
		{"Resources:", "Resources: [", "yaml"},
	} {
		template := strings.Replace(string(marketmeter.Template), test.old, test.new, 1)
		_, err := localdb.CreateTable(t.Context(), client, []byte(template), "any")
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("with %q in the template: %v; want an error with %q", test.new, err, test.want)
		}
	}
}
