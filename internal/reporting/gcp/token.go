package gcp

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google/externalaccount"
	"golang.org/x/oauth2/jwt"

	"github.com/marketmeter/marketmeter/internal/metering"
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
	ctx = context.WithValue(ctx, oauth2.HTTPClient, m.client.HTTP(ctx))
	var source oauth2.TokenSource
	var secrets []string
	var err error
	if m.options.WorkloadIdentity != nil {
		source, secrets, err = m.federated(ctx)
	} else {
		source, err = m.keyed(ctx)
	}
	if errors.Is(err, reporting.ErrSecretUnavailable) {
		return exchange.Token{}, err
	}
	if err != nil {
		return exchange.Token{}, fmt.Errorf("%w: %w", errCredentials, err)
	}
	token, err := source.Token()
	if err != nil {
		return exchange.Token{}, tokenFailure(err, secrets)
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

// refusedStatus finds the status and the body of a refusal in an error of the libraries, which is
// text for two of the three calls.
var refusedStatus = regexp.MustCompile(`(?s)status code (4\d\d): (.*)`)

// tokenFailure describes a failed fetch without the library's text, in which the response, and so
// anything, may stand.
func tokenFailure(err error, secrets []string) error {
	status, body := "", []byte(nil)
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		status, body = strconv.Itoa(refused.Response.StatusCode), refused.Body
	} else if failed, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("a token endpoint of Google can't be reached: %w", failed.Err)
	} else if found := refusedStatus.FindStringSubmatch(err.Error()); found != nil {
		status, body = found[1], []byte(found[2])
	}
	switch {
	case status == "":
		return errors.New("a token endpoint of Google did not respond with a token")
	case status[0] == '4' && status != "429":
		return fmt.Errorf("%w: a token endpoint responded with status %s%s", errCredentials, status, tokenError(body, secrets))
	default:
		return fmt.Errorf("a token endpoint of Google responded with status %s", status)
	}
}

const maxWords = 300

// secretForm is a word with what a token, a key, a signature or an assertion looks like.
var secretForm = regexp.MustCompile(`\S*[A-Za-z0-9_+/=%-]{32,}\S*`)

// tokenError returns the error in a token endpoint's response, in the form of RFC 6749 or of
// Google's APIs, without anything that may be a secret: a response may repeat the request.
func tokenError(body []byte, secrets []string) string {
	_, words := readError(body)
	var refused struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &refused) == nil && refused.Code != "" {
		words = refused.Code + ": " + refused.Description
	}
	if words == "" {
		return ""
	}
	words = secretForm.ReplaceAllString(exchange.RedactText(words, secrets...), "(redacted)")
	if len(words) > maxWords {
		words = strings.ToValidUTF8(words[:maxWords], "") + "..."
	}
	return ", " + words
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
	if !isRSA([]byte(key.Key)) {
		return nil, errors.New("the private key of the service account is no RSA key in PEM")
	}
	config := jwt.Config{Email: key.Email, PrivateKeyID: key.ID, PrivateKey: []byte(key.Key), Scopes: []string{scope}}
	config.TokenURL = m.endpoint("https://oauth2.googleapis.com") + "/token"
	return config.TokenSource(ctx), nil
}

func isRSA(text []byte) bool {
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return true
	}
	key, _ := x509.ParsePKCS8PrivateKey(block.Bytes)
	_, ok := key.(*rsa.PrivateKey)
	return ok
}

// federated is the source of Workload Identity Federation. Of the connection's configuration it
// uses the audience and the service account. All URLs are ours: the configuration comes from a
// client of the API (the library's documentation warns of such). It returns what it signs with,
// which errors must not have.
func (m *Marketplace) federated(ctx context.Context) (source oauth2.TokenSource, secrets []string, err error) {
	audience, _ := m.options.WorkloadIdentity["audience"].(string)
	impersonationURL, _ := m.options.WorkloadIdentity["service_account_impersonation_url"].(string)
	path := metering.ImpersonationPath(impersonationURL)
	if !strings.HasPrefix(audience, "//iam.googleapis.com/") || path == "" {
		return nil, nil, errors.New("workloadIdentity must have audience, //iam.googleapis.com/..., and service_account_impersonation_url, " +
			"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/EMAIL:generateAccessToken")
	}
	credentials, err := m.options.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("no AWS credentials: %w", err)
	}
	source, err = externalaccount.NewTokenSource(ctx, externalaccount.Config{
		Audience: audience, SubjectTokenType: "urn:ietf:params:aws:token-type:aws4_request", Scopes: []string{scope},
		TokenURL:                       m.endpoint("https://sts.googleapis.com") + "/v1/token",
		ServiceAccountImpersonationURL: m.endpoint("https://iamcredentials.googleapis.com") + path,
		AwsSecurityCredentialsSupplier: supplier{credentials, m.options.Region},
	})
	return source, []string{credentials.SecretAccessKey, credentials.SessionToken}, err
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
