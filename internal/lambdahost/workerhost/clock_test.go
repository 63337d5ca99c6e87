package workerhost_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/lambdahost/workerhost"
)

// The clock of the workers counts the time for which Lambda had the process frozen.
func TestProcess_HasTheClockOfTheWall(t *testing.T) {
	t.Setenv("TABLE_NAME", "no-table")
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("DYNAMODB_ENDPOINT", "http://127.0.0.1:1")
	if now := workerhost.Process(slog.New(slog.DiscardHandler)).Now().String(); strings.Contains(now, "m=") {
		t.Errorf("the time is %s", now)
	}
}
