package lambdahost

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/aws/aws-lambda-go/events"
	"github.com/awslabs/aws-lambda-go-api-proxy/core"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// The members of the authorizer's context, which API Gateway passes to the functions.
const (
	contextOrganization = "organization"
	contextKeyID        = "keyId"
	contextScopes       = "scopes"
	contextExpiryTime   = "expiryTime" // only of a key that expires
)

// Authorizer makes keys a Lambda authorizer (HTTP API, payload 2.0, simple response). API Gateway
// caches its response by the Authorization header, for all routes. So it identifies the caller and
// never checks the operation, which the functions do.
//
// A key that is not valid is refused. If the check fails, the error is returned; API Gateway then
// responds with 500 and does not cache.
func Authorizer(keys *auth.Authenticator) func(context.Context, events.APIGatewayV2CustomAuthorizerV2Request) (events.APIGatewayV2CustomAuthorizerSimpleResponse, error) {
	var begun atomic.Bool
	return func(ctx context.Context, event events.APIGatewayV2CustomAuthorizerV2Request) (events.APIGatewayV2CustomAuthorizerSimpleResponse, error) {
		log := keys.Log.With("requestId", event.RequestContext.RequestID, "traceId", traceOf(ctx).root, "coldStart", !begun.Swap(true))
		ctx, cancel := withTimeToAnswer(ctx)
		defer cancel()
		principal, err := authenticate(ctx, keys, event)
		switch {
		case metering.CodeOf(err) == metering.Unauthenticated:
			log.Info("refused", "error", err.Error())
			return events.APIGatewayV2CustomAuthorizerSimpleResponse{}, nil
		case err != nil:
			log.Error("not decided", "error", err.Error())
			return events.APIGatewayV2CustomAuthorizerSimpleResponse{}, errors.New("internal error")
		}
		log.Info("identified", "organization", principal.Organization, "keyId", principal.KeyID)
		told := map[string]any{
			contextOrganization: string(principal.Organization),
			contextKeyID:        principal.KeyID,
			contextScopes:       principal.ScopeNames(),
		}
		if !principal.ExpiryTime.IsZero() {
			told[contextExpiryTime] = metering.FormatTime(principal.ExpiryTime)
		}
		return events.APIGatewayV2CustomAuthorizerSimpleResponse{IsAuthorized: true, Context: told}, nil
	}
}

// authenticate uses the identity source, the Authorization header, because API Gateway caches by
// it.
func authenticate(ctx context.Context, keys *auth.Authenticator, event events.APIGatewayV2CustomAuthorizerV2Request) (auth.Principal, error) {
	if len(event.IdentitySource) != 1 {
		return auth.Principal{}, metering.Errorf(metering.Unauthenticated, "%d principal sources: one is due, the Authorization header", len(event.IdentitySource))
	}
	return keys.Authenticate(ctx, event.IdentitySource[0])
}

// Principal returns the principal that the authorizer has identified. It reads the request context
// of the event, which the adapter passes with the request, and nothing that a client sends. It
// returns Unauthenticated if no authorizer has identified the caller, or if our authorizer would
// not have written the context. A newer version may have written names of scopes: unknown ones
// allow nothing.
func Principal(r *http.Request) (auth.Principal, error) {
	gateway, ok := core.GetAPIGatewayV2ContextFromContext(r.Context())
	if !ok || gateway.Authorizer == nil || gateway.Authorizer.Lambda == nil {
		return auth.Principal{}, metering.Errorf(metering.Unauthenticated, "no authorizer has told who asks: no request is let in")
	}
	told := func(name string) string {
		value, _ := gateway.Authorizer.Lambda[name].(string)
		return value
	}
	principal := auth.Principal{KeyID: told(contextKeyID)}
	var err error
	principal.Scopes, principal.UnknownScopes, ok = auth.ReadScopes(told(contextScopes))
	if !ok {
		err = errors.New("it has no " + contextScopes)
	}
	if _, expires := gateway.Authorizer.Lambda[contextExpiryTime]; expires && err == nil {
		principal.ExpiryTime, err = metering.ParseTime(told(contextExpiryTime))
	}
	if err == nil && principal.KeyID == "" {
		err = errors.New("it has no " + contextKeyID)
	}
	if err == nil {
		principal.Organization, err = metering.StoredOrgID(told(contextOrganization))
	}
	if err != nil {
		return auth.Principal{}, &metering.Error{
			Code: metering.Unauthenticated, Message: "what the authorizer has told does not tell who asks", Cause: err,
		}
	}
	return principal, nil
}
