// Package tabletest gives each test a DynamoDB table of its own.
package tabletest

import (
	"context"
	"crypto/rand"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/table"
)

// Client makes a table from template.yaml in the DynamoDB Local that DYNAMODB_ENDPOINT names, under
// a name that no other test has, and deletes it when t ends. It ends t where that variable is not set.
func Client(t testing.TB) (client *dynamodb.Client, name string) {
	t.Helper()
	endpoint := os.Getenv("DYNAMODB_ENDPOINT")
	if endpoint == "" {
		t.Fatal("this test needs DynamoDB Local and DYNAMODB_ENDPOINT is not set: run `make test`, " +
			"or `go run ./cmd/marketmeter with-dynamodb -- go test PACKAGES`")
	}
	client, name = localdb.NewClient(endpoint), "test-"+rand.Text()
	if _, err := localdb.CreateTable(t.Context(), client, marketmeter.Template, name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if _, err := client.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &name}); err != nil {
			t.Errorf("deleting the table of this test: %v", err)
		}
	})
	return client, name
}

// New is a Table of Client's.
func New(t testing.TB) *table.Table {
	t.Helper()
	return table.New(Client(t))
}
