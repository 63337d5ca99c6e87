// Package tabletest creates a DynamoDB table for each test, and records the requests to it.
package tabletest

import (
	"context"
	"crypto/rand"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/table"
)

// Client creates a table from template.yaml in the DynamoDB Local at DYNAMODB_ENDPOINT, under a
// name that no other test has, and deletes it when t ends. It ends t if that variable is not set.
func Client(t testing.TB) (client *dynamodb.Client, name string) {
	t.Helper()
	name = "test-" + rand.Text()
	return ClientOf(t, name), name
}

// ClientOf is Client for a test that needs a fixed table name. The table must not exist yet.
func ClientOf(t testing.TB, name string) *dynamodb.Client {
	t.Helper()
	if os.Getenv("DYNAMODB_ENDPOINT") == "" {
		t.Fatal("this test needs DynamoDB Local and DYNAMODB_ENDPOINT is not set: run `make test`, " +
			"or `go run ./cmd/marketmeter with-dynamodb -- go test PACKAGES`")
	}
	client := NewClient(recorder{next: transport})
	if created, err := localdb.CreateTable(t.Context(), client, marketmeter.Template, name); err != nil {
		t.Fatal(err)
	} else if !created {
		t.Fatalf("there is a table %s already", name)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if _, err := client.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &name}); err != nil {
			t.Errorf("deleting the table of this test: %v", err)
		}
	})
	return client
}

// NewClient returns a client of the DynamoDB Local at DYNAMODB_ENDPOINT, over the transport.
func NewClient(transport http.RoundTripper) *dynamodb.Client {
	return dynamoclient.New(dynamoclient.Options{
		Region: localdb.Region, Endpoint: os.Getenv("DYNAMODB_ENDPOINT"), Transport: transport,
		Credentials: credentials.NewStaticCredentialsProvider(localdb.AccessKeyID, localdb.SecretAccessKey, ""),
	})
}

// Items returns all items of a table, read consistently.
func Items(ctx context.Context, client *dynamodb.Client, name string) (items []map[string]types.AttributeValue, err error) {
	pages := dynamodb.NewScanPaginator(client, &dynamodb.ScanInput{TableName: &name, ConsistentRead: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
	}
	return items, nil
}

// New returns the Table of a new Client.
func New(t testing.TB) *table.Table {
	t.Helper()
	return table.New(Client(t))
}
