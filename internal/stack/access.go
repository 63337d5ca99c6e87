package stack

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/aws/smithy-go"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
)

// AccessError is a failed call that a person can fix. The program prints only the sentence; the
// cause is for logs.
type AccessError struct {
	Sentence string
	Cause    error
}

func (e *AccessError) Error() string { return e.Sentence + ": " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *AccessError) Unwrap() error { return e.Cause }

// FollowedBy adds the next step to an error, and to the sentence of an AccessError in it.
func FollowedBy(err error, what string) error {
	if access, ok := errors.AsType[*AccessError](err); ok {
		return &AccessError{access.Sentence + what, err}
	}
	return fmt.Errorf("%w%s", err, what)
}

// Location names the table that a command uses and its location: an endpoint or, if Endpoint is
// empty, a region of AWS.
type Location struct{ Name, Region, Endpoint string }

func (t Location) String() string {
	if t.Endpoint != "" {
		return fmt.Sprintf("table %s at %s", t.Name, t.Endpoint)
	}
	return fmt.Sprintf("table %s in AWS region %s", t.Name, t.Region)
}

// Explain returns an AccessError for a failed call, or err itself if it is of another kind.
func (t Location) Explain(err error) error {
	sentence := ""
	if missing, ok := errors.AsType[*dynamoclient.CredentialsError](err); ok {
		sentence = t.noCredentials(missing.Cause)
		// A service that hands out credentials, such as STS, has refused those that it was asked
		// with.
		if api, ok := errors.AsType[smithy.APIError](missing.Cause); ok {
			sentence = cmp.Or(t.refusedCredentials(api), sentence)
		}
	} else if api, ok := errors.AsType[smithy.APIError](err); ok {
		sentence = t.refused(api)
	} else if !errors.Is(err, context.Canceled) {
		sentence = t.unreachable(err)
	}
	if sentence == "" {
		return err
	}
	return &AccessError{sentence, err}
}

// refusedCredentials explains a refusal that comes from the service that hands out credentials.
func (t Location) refusedCredentials(api smithy.APIError) string {
	switch api.ErrorCode() {
	case "AccessDenied", "AccessDeniedException":
		return fmt.Sprintf("the AWS credentials may not get those to use %v with, such as those of the profile's role: have their policy, "+
			"and the role's trust policy, allow it (%s)", t, onOneLine(fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())))
	case "ValidationException":
		return ""
	}
	return t.refused(api)
}

func (t Location) noCredentials(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("the AWS credentials to use %v with did not come in time: check the service that they come from, and the network "+
			"(%v)", t, onOneLine(err))
	}
	return fmt.Sprintf("no AWS credentials to use %v with: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "+
		"(and AWS_SESSION_TOKEN, if they are temporary), or log in with `aws sso login` (%v)", t, onOneLine(err))
}

// refused explains errors with which DynamoDB, or AWS before it, refuses any request. The codes are
// those of DynamoDB and, because other endpoints return them, AWS's common errors.
func (t Location) refused(api smithy.APIError) string {
	message := onOneLine(fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage()))
	switch api.ErrorCode() {
	case "ResourceNotFoundException", "TableNotFoundException":
		if t.Endpoint != "" {
			return fmt.Sprintf("there is no %v, in region %s: check TABLE_NAME, DYNAMODB_ENDPOINT and AWS_REGION (%s)", t, t.Region, message)
		}
		return fmt.Sprintf("there is no %v: either the name is wrong or the region; check TABLE_NAME and AWS_REGION "+
			"against the stack's output TableName and its region (%s)", t, message)
	case "ExpiredTokenException", "ExpiredToken", "TokenRefreshRequired":
		return fmt.Sprintf("the AWS credentials have expired: get new ones, as with `aws sso login`, and use %v again (%s)", t, message)
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "AuthFailure":
		return fmt.Sprintf("AWS does not know the access key of the credentials: check AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN "+
			"(which temporary credentials need and others must not have), and that the account has enabled region %s (%s)", t.Region, message)
	case "InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture":
		if wrongClock(api) {
			return fmt.Sprintf("the clock of this machine is wrong: AWS refuses requests that differ from its time by more than "+
				"a few minutes; set the clock (%s)", message)
		}
		return fmt.Sprintf("AWS refuses the signature: check that AWS_SECRET_ACCESS_KEY belongs to the access key, and that it is whole (%s)", message)
	case "MissingAuthenticationTokenException", "MissingAuthenticationToken", "IncompleteSignatureException", "IncompleteSignature":
		return fmt.Sprintf("AWS can't read the signature: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for characters that do not "+
			"belong there, and proxies that change requests (%s)", message)
	case "AccessDeniedException", "AccessDenied", "NotAuthorized", "UnauthorizedOperation", "KMSAccessDeniedException":
		return fmt.Sprintf("the AWS credentials lack a permission on %v: have their policy, and those above it, allow what AWS names (%s)", t, message)
	case "OptInRequired", "SubscriptionRequiredException":
		return fmt.Sprintf("the AWS account can't use DynamoDB in region %s: enable the region, or complete the account's sign-up (%s)", t.Region, message)
	case "ValidationException":
		if strings.Contains(message, "does not have the specified index") || strings.Contains(message, "does not match the schema") {
			return fmt.Sprintf("%v is not one of marketmeter, as template.yaml defines it: check TABLE_NAME (%s)", t, message)
		}
		if strings.Contains(strings.ToLower(message), "tablename") || strings.Contains(message, "Invalid table/index name") {
			return fmt.Sprintf("TABLE_NAME is %q: it must be the name of a table, 3 to 255 letters, digits, \"_\", \"-\" and \".\" (%s)", t.Name, message)
		}
	}
	return ""
}

func wrongClock(api smithy.APIError) bool {
	switch api.ErrorCode() {
	case "RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture":
		return true
	}
	message := strings.ToLower(api.ErrorMessage())
	return strings.Contains(message, "signature expired") || strings.Contains(message, "signature not yet current")
}

// unreachable explains why no response came from DynamoDB.
func (t Location) unreachable(err error) string {
	check, host := "check AWS_REGION and the network", "dynamodb."+t.Region+".amazonaws.com"
	if t.Endpoint != "" {
		check, host = "check DYNAMODB_ENDPOINT and the network", t.Endpoint
	}
	if name, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("the host %s of %v is not found: %s (%v)", name.Name, t, check, name)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Sprintf("nothing listens at %s: %s, or start the DynamoDB there", host, check)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Sprintf("the certificate of %s is not trusted: %s, and proxies in between (%v)", host, check, onOneLine(rootOf(err)))
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return fmt.Sprintf("%s does not respond in time: %s, proxies and firewalls in between (%v)", host, check, onOneLine(rootOf(err)))
	}
	_, unreachable := errors.AsType[*url.Error](err)
	if _, unreadable := errors.AsType[*smithy.DeserializationError](err); unreachable || unreadable {
		return fmt.Sprintf("%s does not respond as DynamoDB does: %s (%v)", host, check, onOneLine(rootOf(err)))
	}
	return ""
}

// rootOf returns the cause of a failed request, without the names that the layers above put before
// it.
func rootOf(err error) error {
	if request, ok := errors.AsType[*url.Error](err); ok {
		return request.Err
	}
	return err
}

func onOneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
