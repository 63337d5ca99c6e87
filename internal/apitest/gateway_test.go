package apitest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// overLambda does what API Gateway (HTTP API, payload 2.0) does with a request and the functions
// behind it, for all requests that the tests send. Its function accepts every path and method; on
// AWS only its routes reach a function. It does not cache the authorizer's responses.
type overLambda struct {
	authorizer func(context.Context, events.APIGatewayV2CustomAuthorizerV2Request) (events.APIGatewayV2CustomAuthorizerSimpleResponse, error)
	function   lambda.Handler
}

// admitted is the context that the authorizer returns for a request that it admits.
type admitted = map[string]any

func (o overLambda) send(ctx context.Context, r request) (answer, error) {
	if _, ok := delivered(r.path); !ok {
		return ofGateway(http.StatusBadRequest), nil
	}
	context, refusal, err := o.authorize(ctx, r)
	if err != nil || refusal.status != 0 {
		return refusal, err
	}
	event, err := eventOf(r, doc{"lambda": context})
	if err != nil {
		return answer{}, err
	}
	got, err := o.invoke(ctx, event)
	got.authentication = refusal.authentication
	return got, err
}

// authorize calls the authorizer. If it admits the request, only the authentication of the answer
// is set.
func (o overLambda) authorize(ctx context.Context, r request) (context admitted, got answer, err error) {
	message, err := messageOf(r)
	if err != nil {
		return nil, answer{}, err
	}
	key := message["headers"].(map[string]string)["authorization"]
	if key == "" {
		return nil, ofGateway(http.StatusUnauthorized), nil
	}
	method, path := r.method, message["rawPath"].(string)
	message["type"], message["identitySource"] = "REQUEST", []string{key}
	message["routeArn"] = "arn:aws:execute-api:us-east-1:123456789012:a1b2c3d4e5/$default/" + method + path
	var event events.APIGatewayV2CustomAuthorizerV2Request
	if err := throughJSON(message, &event); err != nil {
		return nil, answer{}, err
	}
	ctx, requests := tabletest.Record(ctx)
	ctx, cancel := contextOfFunction(ctx)
	defer cancel()
	response, failure := o.authorizer(ctx, event)
	var decided struct {
		IsAuthorized *bool
		Context      admitted
	}
	if err := throughJSON(response, &decided); err != nil {
		return nil, answer{}, err
	}
	switch {
	case failure != nil || decided.IsAuthorized == nil:
		got = ofGateway(http.StatusInternalServerError)
	case !*decided.IsAuthorized:
		got = ofGateway(http.StatusForbidden)
	}
	got.authentication = requests()
	return decided.Context, got, nil
}

// ofGateway is a response that API Gateway makes itself.
func ofGateway(status int) answer {
	texts := map[int]string{
		http.StatusBadRequest: "Bad Request", http.StatusUnauthorized: "Unauthorized", http.StatusForbidden: "Forbidden", http.StatusInternalServerError: "Internal Server Error",
	}
	return answer{
		status: status, headers: http.Header{"Content-Type": {"application/json"}}, body: `{"message":"` + texts[status] + `"}`, ofGateway: true,
	}
}

// maxLambdaResponse is the max size of a response that Lambda accepts from a function.
const maxLambdaResponse = 6_291_556

// invoke invokes the function of the operations.
func (o overLambda) invoke(ctx context.Context, event []byte) (answer, error) {
	ctx, requests := tabletest.Record(ctx)
	ctx, cancel := contextOfFunction(ctx)
	defer cancel()
	envelope, err := o.function.Invoke(ctx, event)
	if err != nil {
		return answer{}, fmt.Errorf("an invocation error: %w", err)
	}
	if len(envelope) > maxLambdaResponse || !utf8.Valid(envelope) {
		return answer{}, fmt.Errorf("the response has %d bytes: Lambda takes %d, of UTF-8", len(envelope), maxLambdaResponse)
	}
	var response events.APIGatewayV2HTTPResponse
	if err := json.Unmarshal(envelope, &response); err != nil {
		return answer{}, fmt.Errorf("the response: %w", err)
	}
	got := answer{status: response.StatusCode, headers: http.Header{}, body: response.Body, operation: requests()}
	for name, value := range response.Headers {
		got.headers.Set(name, value)
	}
	if response.IsBase64Encoded {
		body, err := base64.StdEncoding.DecodeString(response.Body)
		if err != nil {
			return answer{}, fmt.Errorf("the body: %w", err)
		}
		if got.body = string(body); utf8.Valid(body) {
			return answer{}, fmt.Errorf("the body is base64, JSON never needs that")
		}
	}
	return got, nil
}

// contextOfFunction ends when the function's time is over, or when ctx ends, if that is earlier.
// The time is longer than that of any function: a slow machine is no fault.
func contextOfFunction(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 2*time.Minute)
}

// eventOf is the event as the function receives it, with that value in requestContext.authorizer.
func eventOf(r request, authorizer doc) ([]byte, error) {
	message, err := messageOf(r)
	if err != nil {
		return nil, err
	}
	if authorizer != nil {
		message["requestContext"].(doc)["authorizer"] = authorizer
	}
	message["isBase64Encoded"] = false
	if r.body != "" {
		message["body"] = r.body
		if isText := r.headers["Content-Type"] == "application/json"; !isText || !utf8.ValidString(r.body) {
			message["body"], message["isBase64Encoded"] = base64.StdEncoding.EncodeToString([]byte(r.body)), true
		}
	}
	return json.Marshal(message)
}

// delivered is the path as an event has it. An HTTP API decodes a path, cuts it at a "?" that was
// encoded, and decodes it again; ok is false if it refuses the path itself. Captured on a $default
// route: /question%3Fvalue came as /question, /literal%2525value as /literal%value,
// /literal%252Fvalue as /literal/value, and /percent%25done was refused.
func delivered(path string) (_ string, ok bool) {
	for range 2 {
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return "", false
		}
		path, _, _ = strings.Cut(decoded, "?")
	}
	return path, true
}

// messageOf is what the events of the authorizer and of the function have in common: the path as
// delivered; in pathParameters its parts decoded once, as is likely (it was not captured); the
// query as sent; header names in lower case, and the values of a header that is sent twice joined
// with a comma.
func messageOf(r request) (doc, error) {
	path, ok := delivered(r.path)
	if !ok {
		return nil, fmt.Errorf("API Gateway refuses the path %s itself", r.path)
	}
	headers := map[string]string{"host": "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com", "content-length": strconv.Itoa(len(r.body))}
	for _, sent := range []map[string]string{r.headers, r.again} {
		for name, value := range sent {
			name, value = strings.ToLower(name), strings.Trim(value, " \t")
			if before, there := headers[name]; there && name != "content-length" && name != "host" {
				value = before + "," + value
			}
			headers[name] = value
		}
	}
	if headers["authorization"] == "" {
		delete(headers, "authorization")
	}
	routeKey, parameters := "$default", map[string]string(nil)
	if f, e := routed(r.method, r.path); f != nil {
		routeKey, parameters = e.String(), e.parameters(r.path)
	}
	call := doc{"method": r.method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.17", "userAgent": "curl/8.5.0"}
	message := doc{
		"version": "2.0", "routeKey": routeKey, "rawPath": path, "rawQueryString": r.query, "headers": headers, "pathParameters": parameters,
		"requestContext": doc{
			"accountId": "123456789012", "apiId": "a1b2c3d4e5", "domainName": "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com",
			"domainPrefix": "a1b2c3d4e5", "http": call, "requestId": "bqO8gjLvIAMEPDA=", "routeKey": routeKey, "stage": "$default",
			"time": "29/Jul/2024:15:51:28 +0000", "timeEpoch": 1722268288071,
		},
	}
	if r.query != "" {
		joined := map[string]string{}
		values, _ := url.ParseQuery(r.query)
		for name, all := range values {
			joined[name] = strings.Join(all, ",")
		}
		message["queryStringParameters"] = joined
	}
	return message, nil
}

// throughJSON encodes a value and decodes it, as on its way to another process.
func throughJSON(from, to any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}
