// Package connect makes the marketplace of a connection: it finds the credentials and chooses
// between a marketplace and the sandbox. It alone knows all marketplaces.
package connect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/aws"
	"github.com/marketmeter/marketmeter/internal/reporting/azure"
	"github.com/marketmeter/marketmeter/internal/reporting/gcp"
)

// Options are what a process has.
type Options struct {
	// Credentials are the process's own. They assume the roles of connections, and are exchanged
	// for Google's. With SandboxOnly they may be nil: the sandbox accepts the access key SANDBOX,
	// unless its catalog names sellers.
	Credentials awssdk.CredentialsProvider
	Region      string

	// Secrets may have a method Forget(arn string), by which Verify reads a secret that was
	// changed.
	Secrets reporting.Secrets

	STSEndpoint string // empty is the Region's own

	// SandboxURL is the only endpoint of a connection that is used. A deployed stack never has one.
	SandboxURL string
	// SandboxOnly is for a process on a developer's machine: only connections to the sandbox are
	// used.
	SandboxOnly bool

	// OwnRoleOrganizations may report to AWS without a roleArn.
	OwnRoleOrganizations []string

	Transport http.RoundTripper // nil is the default one
	Now       func() time.Time
}

// maxMarketplaces is how many marketplaces are held. Each has a token and, for Google, the checks
// of its consumers.
const maxMarketplaces = 1000

// Connector makes marketplaces and holds them. It is safe for concurrent use.
type Connector struct {
	options Options

	mu   sync.Mutex
	held map[identity]*holding
	uses int
}

type holding struct {
	marketplace reporting.Marketplace
	used        int
}

// New returns a connector.
func New(o Options) *Connector {
	if o.Credentials == nil && o.SandboxOnly {
		o.Credentials = awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
			return awssdk.Credentials{AccessKeyID: "SANDBOX", SecretAccessKey: "sandbox"}, nil
		})
	}
	if o.Region == "" && o.SandboxOnly {
		o.Region = metering.DefaultAWSRegion
	}
	return &Connector{options: o, held: map[identity]*holding{}}
}

// identity is what the marketplace of a connection depends on.
type identity struct {
	org                                                                             metering.OrgID
	partner                                                                         metering.Partner
	roleARN, externalID, tenantID, clientID, secretARN, audience, account, endpoint string
}

func identityOf(org metering.OrgID, c *metering.Connection) identity {
	audience, _ := c.WorkloadIdentity["audience"].(string)
	account, _ := c.WorkloadIdentity["service_account_impersonation_url"].(string)
	return identity{org, c.Partner, c.RoleARN, c.ExternalID, c.TenantID, c.ClientID, c.SecretARN, audience, account, c.Endpoint}
}

// Marketplace returns the marketplace of a connection. The same connection gives the same one,
// which caches tokens and checks. An error says why the connection can't be used.
func (c *Connector) Marketplace(org metering.OrgID, connection metering.Connection) (reporting.Marketplace, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uses++
	key := identityOf(org, &connection)
	if h := c.held[key]; h != nil {
		h.used = c.uses
		return h.marketplace, nil
	}
	m, err := c.make(org, &connection)
	if err != nil {
		return nil, err
	}
	if len(c.held) >= maxMarketplaces {
		c.dropOldest()
	}
	c.held[key] = &holding{m, c.uses}
	return m, nil
}

// dropOldest drops the marketplace that was not used for the longest time.
func (c *Connector) dropOldest() {
	var oldest identity
	used := c.uses
	for key, h := range c.held {
		if h.used < used {
			oldest, used = key, h.used
		}
	}
	delete(c.held, oldest)
}

// verifier is a marketplace that tries its credentials. All are.
type verifier interface {
	reporting.Marketplace
	// Verify returns a *reporting.Fault if the credentials can't be used.
	Verify(ctx context.Context) error
}

func (c *Connector) make(org metering.OrgID, connection *metering.Connection) (verifier, error) {
	o := &c.options
	sandbox := connection.Endpoint
	switch {
	case sandbox != "" && sandbox != o.SandboxURL:
		return nil, metering.Errorf(metering.Invalid, "the endpoint of the connection to %s is not that of a sandbox beside this process: it is not used", connection.Partner)
	case sandbox == "" && o.SandboxOnly:
		return nil, metering.Errorf(metering.Invalid, "the connection to %s is to the marketplace itself: on this machine, only connections to the sandbox are used", connection.Partner)
	}
	// A connection to the sandbox needs no secret of its own.
	secret := connection.SecretARN
	if sandbox != "" && secret == "" {
		secret = SandboxSecret(connection.Partner, connection.ClientID)
	}
	switch connection.Partner {
	case "AWS":
		if connection.RoleARN == "" && sandbox == "" && !slices.Contains(o.OwnRoleOrganizations, string(org)) {
			return nil, metering.Errorf(metering.Invalid, "the connection to AWS has no roleArn: this organization may not report usage with the service's own role")
		}
		credentials := o.Credentials
		if connection.RoleARN != "" && (sandbox == "" || o.STSEndpoint != "") {
			credentials = aws.AssumeRole(credentials, aws.Role{
				ARN: connection.RoleARN, ExternalID: connection.ExternalID, Region: o.Region, Endpoint: o.STSEndpoint, Transport: o.Transport, Now: o.Now,
			})
		}
		return aws.New(aws.Options{Credentials: credentials, Sandbox: sandbox, Transport: o.Transport, Now: o.Now}), nil
	case "AZURE":
		return azure.New(azure.Options{
			TenantID: connection.TenantID, ClientID: connection.ClientID, SecretARN: secret, Secrets: o.Secrets,
			Sandbox: sandbox, Transport: o.Transport, Now: o.Now,
		}), nil
	case "GCP":
		return gcp.New(gcp.Options{
			WorkloadIdentity: connection.WorkloadIdentity, Credentials: o.Credentials, Region: o.Region,
			SecretARN: secret, Secrets: o.Secrets, Sandbox: sandbox, Transport: o.Transport, Now: o.Now,
		}), nil
	default:
		return nil, metering.Errorf(metering.Invalid, "usage is not reported to %s", connection.Partner)
	}
}

// SandboxSecret is the name by which the secret of a connection to the sandbox is read that names
// none. The Secrets of a process beside a sandbox know it; Secrets Manager does not.
func SandboxSecret(partner metering.Partner, clientID string) string {
	return "sandbox/" + string(partner) + "/" + clientID
}

// verifyFor bounds a Verify: API Gateway waits 30 s for all of the request.
const verifyFor = 20 * time.Second

// Verify tries the credentials of a connection without metering, with nothing that is cached. It
// returns Invalid with the marketplace's own error if they can't be used, and Unavailable if that
// can't be found out now.
func (c *Connector) Verify(ctx context.Context, org metering.OrgID, connection metering.Connection) error {
	if secrets, ok := c.options.Secrets.(interface{ Forget(arn string) }); ok && connection.SecretARN != "" {
		secrets.Forget(connection.SecretARN)
	}
	marketplace, err := c.make(org, &connection)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, verifyFor, fmt.Errorf("no response within %v", verifyFor))
	defer cancel()
	err = marketplace.Verify(ctx)
	fault, ok := errors.AsType[*reporting.Fault](err)
	if !ok {
		return err
	}
	if fault.Lane == reporting.Throttled || fault.Lane == reporting.Unreachable {
		return &metering.Error{
			Code: metering.Unavailable, RetryAfter: max(fault.RetryAfter, time.Second),
			Message: "the connection could not be verified now: " + fault.Reason,
		}
	}
	return metering.Errorf(metering.Invalid, "the credentials of the connection can't be used: %s", fault.Reason)
}
