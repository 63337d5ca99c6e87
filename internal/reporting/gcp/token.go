package gcp

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google/externalaccount"
	"golang.org/x/oauth2/jwt"

	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
)

// scope is the one that check and report need. Source: Service Control v1, authorization scopes.
const scope = "https://www.googleapis.com/auth/servicecontrol"

// errCredentials marks a connection whose credentials are missing or refused.
var errCredentials = errors.New("the credentials for Google are refused")

// faultOf returns the fault of the lane for an error of do.
func faultOf(err error) reporting.LaneFault {
	if errors.Is(err, errCredentials) {
		return reporting.CredentialsRefused
	}
	return reporting.Unreachable
}

// fetchToken fetches a token for the service account. Its errors hold no secret: those of the
// libraries repeat responses.
func (m *Marketplace) fetchToken(ctx context.Context) (exchange.Token, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, m.client.HTTP())
	var source oauth2.TokenSource
	var err error
	if m.options.WorkloadIdentity != nil {
		source, err = m.federated(ctx)
	} else {
		source, err = m.keyed(ctx)
	}
	if err != nil {
		return exchange.Token{}, fmt.Errorf("%w: %w", errCredentials, err)
	}
	token, err := source.Token()
	if err != nil {
		return exchange.Token{}, tokenFailure(err)
	}
	if token.AccessToken == "" {
		return exchange.Token{}, errors.New("a token endpoint of Google responded with no token")
	}
	expires := token.Expiry
	if m.options.WorkloadIdentity == nil {
		// The library has added the lifetime to the machine's clock.
		expires = m.options.Now().Add(time.Until(token.Expiry))
	}
	return exchange.Token{Value: token.AccessToken, Expires: expires}, nil
}

// refusedStatus finds the status of a refusal in an error of the libraries, which is text for two
// of the three calls.
var refusedStatus = regexp.MustCompile(`status code (4\d\d)`)

// tokenFailure describes a failed fetch without the library's text, in which the response, and so
// anything, may stand.
func tokenFailure(err error) error {
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		if refused.Response.StatusCode/100 == 4 {
			return fmt.Errorf("%w: the token endpoint responded with status %d", errCredentials, refused.Response.StatusCode)
		}
		return fmt.Errorf("the token endpoint of Google responded with status %d", refused.Response.StatusCode)
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("a token endpoint of Google can't be reached: %w", failed.Err)
	}
	if status := refusedStatus.FindStringSubmatch(err.Error()); status != nil {
		return fmt.Errorf("%w: a token endpoint responded with status %s", errCredentials, status[1])
	}
	return errors.New("a token endpoint of Google did not respond with a token")
}

// keyed is the source of a service account's key.
func (m *Marketplace) keyed(ctx context.Context) (oauth2.TokenSource, error) {
	secret, err := m.options.Secrets.Secret(ctx, m.options.SecretARN)
	if err != nil {
		return nil, fmt.Errorf("the key of the service account can't be read: %w", err)
	}
	var key struct {
		Type  string `json:"type"`
		Email string `json:"client_email"`
		ID    string `json:"private_key_id"`
		Key   string `json:"private_key"`
	}
	// The key's token_uri is not used: a secret must not choose the host that it is sent to.
	if json.Unmarshal([]byte(secret), &key) != nil || key.Type != "service_account" || key.Email == "" || key.Key == "" {
		return nil, errors.New("the secret is no key of a service account, as Google exports it in JSON")
	}
	if block, _ := pem.Decode([]byte(key.Key)); block == nil {
		return nil, errors.New("the private key of the service account is not in PEM")
	}
	config := jwt.Config{Email: key.Email, PrivateKeyID: key.ID, PrivateKey: []byte(key.Key), Scopes: []string{scope}}
	config.TokenURL = m.endpoint("https://oauth2.googleapis.com") + "/token"
	return config.TokenSource(ctx), nil
}

// impersonation is the only form of an URL that may be called with the federated token.
var impersonation = regexp.MustCompile(`^https://iamcredentials\.googleapis\.com(/v1/projects/-/serviceAccounts/[A-Za-z0-9@._-]+:generateAccessToken)$`)

// federated is the source of Workload Identity Federation. Of the connection's configuration it
// uses the audience and the service account. All URLs are ours: the configuration comes from a
// client of the API (the library's documentation warns of such).
func (m *Marketplace) federated(ctx context.Context) (oauth2.TokenSource, error) {
	audience, _ := m.options.WorkloadIdentity["audience"].(string)
	impersonationURL, _ := m.options.WorkloadIdentity["service_account_impersonation_url"].(string)
	path := impersonation.FindStringSubmatch(impersonationURL)
	if !strings.HasPrefix(audience, "//iam.googleapis.com/") || path == nil {
		return nil, errors.New("workloadIdentity must have audience, //iam.googleapis.com/..., and service_account_impersonation_url, " +
			"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/EMAIL:generateAccessToken")
	}
	credentials, err := m.options.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("no AWS credentials: %w", err)
	}
	return externalaccount.NewTokenSource(ctx, externalaccount.Config{
		Audience: audience, SubjectTokenType: "urn:ietf:params:aws:token-type:aws4_request", Scopes: []string{scope},
		TokenURL:                       m.endpoint("https://sts.googleapis.com") + "/v1/token",
		ServiceAccountImpersonationURL: m.endpoint("https://iamcredentials.googleapis.com") + path[1],
		AwsSecurityCredentialsSupplier: supplier{credentials, m.options.Region},
	})
}

// supplier supplies the function's own AWS credentials.
type supplier struct {
	credentials awssdk.Credentials
	region      string
}

func (s supplier) AwsRegion(context.Context, externalaccount.SupplierOptions) (string, error) {
	return s.region, nil
}

func (s supplier) AwsSecurityCredentials(context.Context, externalaccount.SupplierOptions) (*externalaccount.AwsSecurityCredentials, error) {
	c := s.credentials
	return &externalaccount.AwsSecurityCredentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}, nil
}
