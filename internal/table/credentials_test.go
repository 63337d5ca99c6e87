package table_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
)

// If the service's credentials are wrong, no client is asked to try again or learns the reason.
// Only the log has it.
func TestTable_WithoutCredentialsIsAnInternalError(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{errors.New("no role found"), context.DeadlineExceeded} {
		tbl := table.New(dynamoclient.New(dynamoclient.Options{
			Region: "eu-west-1", Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{}, cause
			}),
		}), "mine")
		err := tbl.Ping(t.Context())
		known, ok := errors.AsType[*metering.Error](err)
		if !ok || known.Code != metering.Internal || known.Message != "internal error" || !strings.Contains(err.Error(), "no AWS credentials: "+cause.Error()) {
			t.Errorf("%v", err)
		}
	}
}
