package localserver

import (
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting/inprocess"
	"github.com/marketmeter/marketmeter/internal/transfer"
	"github.com/marketmeter/marketmeter/sandbox"
)

// The connections of the sample data have no secrets: they are verified with those of the sandbox's
// catalog. No marketplace itself is ever called.
func TestConnector_UsesTheSandboxAlone(t *testing.T) {
	catalog := transfer.SampleCatalog()
	box, err := listenSandbox("127.0.0.1:0", sandbox.Options{Catalog: catalog})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := box.stop(); err != nil {
			t.Error(err)
		}
	}()
	c := inprocess.Sandbox{URL: box.url}.Connector(time.Now)
	application := catalog.Azure.Applications[0]
	azure := metering.Connection{Partner: "AZURE", TenantID: application.TenantID, ClientID: application.ClientID, Endpoint: box.url}
	with := func(c metering.Connection, change func(*metering.Connection)) metering.Connection {
		change(&c)
		return c
	}
	for _, row := range []struct {
		name       string
		connection metering.Connection
		says       string // empty: it is verified
	}{
		{"AWS", metering.Connection{Partner: "AWS", Endpoint: box.url}, ""},
		{"AWS with a role", metering.Connection{Partner: "AWS", Endpoint: box.url, RoleARN: "arn:aws:iam::123456789012:role/marketmeter"}, ""},
		{"Azure", azure, ""},
		{"Google", metering.Connection{Partner: "GCP", Endpoint: box.url}, ""},
		{"a secret of Secrets Manager", with(azure, func(c *metering.Connection) {
			c.SecretARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:marketmeter/demo/azure-AbCdEf"
		}), "there is no Secrets Manager on this machine"},
		{"another application", with(azure, func(c *metering.Connection) { c.ClientID = application.TenantID }), "of the connection's clientID"},
		{"AWS itself", metering.Connection{Partner: "AWS", RoleARN: "arn:aws:iam::123456789012:role/marketmeter"}, "only connections to the sandbox"},
		{"Azure itself", with(azure, func(c *metering.Connection) { c.Endpoint = "" }), "only connections to the sandbox"},
		{"another sandbox", with(azure, func(c *metering.Connection) { c.Endpoint = "http://127.0.0.1:1" }), "endpoint"},
	} {
		err := c.Verify(t.Context(), transfer.SampleOrg, row.connection)
		if (err == nil) != (row.says == "") || err != nil && (metering.CodeOf(err) != metering.Invalid || !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
