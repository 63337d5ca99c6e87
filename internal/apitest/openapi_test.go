package apitest

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"
	"github.com/pb33f/libopenapi-validator/content"
	validation "github.com/pb33f/libopenapi-validator/errors"
	v3 "github.com/pb33f/libopenapi/datamodel/high/v3"

	"github.com/marketmeter/marketmeter"
)

// description is api/openapi.yaml, to check requests and responses against.
type description struct {
	validator validator.Validator
	paths     map[string]*v3.PathItem
}

// described is the description in api/openapi.yaml.
var described = sync.OnceValues(func() (*description, error) {
	document, err := libopenapi.NewDocument(marketmeter.OpenAPI)
	if err != nil {
		return nil, err
	}
	model, err := document.BuildV3Model()
	if err != nil {
		return nil, err
	}
	v := validator.NewValidatorFromV3Model(&model.Model, config.WithFormatAssertions(),
		config.WithBodyDecoder("application/json", content.DecoderFunc(decodeTowardZero)))
	v.SetDocument(document)
	d := &description{v, map[string]*v3.PathItem{}}
	for path, item := range model.Model.Paths.PathItems.FromOldest() {
		d.paths[path] = item
	}
	return d, nil
})

// decodeTowardZero decodes the numbers of a body as the nearest floats toward zero, since the
// library compares floats: a number that is rounded up can reach a bound that it is below.
func decodeTowardZero(input *content.DecodeInput) (value any, err error) {
	decoder := json.NewDecoder(input.Body)
	decoder.UseNumber()
	err = decoder.Decode(&value)
	return towardZero(value), err
}

func towardZero(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			v[name] = towardZero(member)
		}
	case []any:
		for i, element := range v {
			v[i] = towardZero(element)
		}
	case json.Number:
		if n, _, err := big.ParseFloat(v.String(), 10, 53, big.ToZero); err == nil {
			f, _ := n.Float64()
			return min(max(f, -math.MaxFloat64), math.MaxFloat64)
		}
	}
	return value
}

func TestDescription_IsValidOpenAPI(t *testing.T) {
	t.Parallel()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	_, wrong := d.validator.ValidateDocument()
	for _, what := range reasons(wrong) {
		t.Error(what)
	}
}

// wrongByDescription reports where a response differs from api/openapi.yaml and, if the request
// succeeded, where the request does.
func wrongByDescription(r request, got answer) []string {
	d, err := described()
	if err != nil {
		return []string{err.Error()}
	}
	if _, ok := delivered(r.path); !ok && got.ofGateway {
		return nil // a path that API Gateway refuses belongs to no operation
	}
	path, item := d.find(r.path)
	if item == nil {
		if got.status != http.StatusNotFound && !got.ofGateway {
			return []string{fmt.Sprintf("status %d on a path that api/openapi.yaml does not have", got.status)}
		}
		return nil
	}
	method := r.method
	operations := item.GetOperations()
	if operations.GetOrZero(strings.ToLower(method)) == nil {
		if got.status != http.StatusMethodNotAllowed && !got.ofGateway {
			return []string{fmt.Sprintf("status %d for a method that api/openapi.yaml does not have", got.status)}
		}
		// Each operation of the path describes the response to another method.
		method = strings.ToUpper(operations.First().Key())
	}
	asked := r.asHTTP(method)
	var wrong []*validation.ValidationError
	if got.status == http.StatusOK {
		_, ofQuery := d.validator.GetParameterValidator().ValidateQueryParamsWithPathItem(asked, item, path)
		_, ofHeaders := d.validator.GetParameterValidator().ValidateHeaderParamsWithPathItem(asked, item, path)
		wrong = slices.Concat(ofQuery, ofHeaders)
		// Values that are not validated, or explained, may differ from the description: with
		// SkipValidation, and in billableRecords of metaInfo if the group has its own.
		if !strings.Contains(r.body, `"SkipValidation"`) && r.query != "explain=true" && strings.Count(r.body, `"billableRecords"`) < 2 {
			_, ofBody := d.validator.GetRequestBodyValidator().ValidateRequestBodyWithPathItem(asked, item, path)
			wrong = append(wrong, ofBody...)
		}
	}
	answered := &http.Response{StatusCode: got.status, Header: got.headers, Body: io.NopCloser(strings.NewReader(got.body)), Request: asked}
	if r.method != http.MethodHead { // a HEAD is refused, without a body
		_, ofAnswer := d.validator.GetResponseBodyValidator().ValidateResponseBodyWithPathItem(asked, answered, item, path)
		wrong = append(wrong, ofAnswer...)
	}
	return append(reasons(wrong), undescribedHeaders(item.GetOperations().GetOrZero(strings.ToLower(method)), got)...)
}

// find returns the path of the description that matches a request's path.
func (d *description) find(requested string) (string, *v3.PathItem) {
	segments := strings.Split(requested, "/")
	for path, item := range d.paths {
		fits := func(i int) bool { return i < len(segments) && segments[i] != "" }
		pattern := strings.Split(path, "/")
		same := len(pattern) == len(segments)
		for i := 1; same && i < len(pattern); i++ {
			same = fits(i) && (pattern[i] == segments[i] || strings.HasPrefix(pattern[i], "{") && canBeID(segments[i]))
		}
		if same {
			return path, item
		}
	}
	return "", nil
}

// canBeID reports whether a segment of a path is in the position of an id, valid or not. Other
// segments belong to paths that do not exist.
func canBeID(segment string) bool {
	text, err := url.PathUnescape(segment)
	return err == nil && text != "." && text != ".." && !strings.Contains(text, "/")
}

// asHTTP is the request with that method.
func (r request) asHTTP(method string) *http.Request {
	asked := &http.Request{
		Method: method, URL: &url.URL{Path: r.path, RawQuery: judgedQuery(r.query)}, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(r.body)),
		ContentLength: int64(len(r.body)),
	}
	if r.body != "" {
		asked.Header.Set("Content-Type", "application/json") // a body without a type is taken for this one
	}
	for _, headers := range []map[string]string{r.headers, r.again} {
		for name, value := range headers {
			asked.Header.Set(name, value)
		}
	}
	return asked
}

// judgedQuery is the part of a query that the library validates correctly. It leaves out empty
// parameters that may be empty, which the library refuses, and metaInfo, whose numbers the library
// reads as floats.
func judgedQuery(query string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(query, "&"), func(pair string) bool {
		name, value, _ := strings.Cut(pair, "=")
		return value == "" || name == "metaInfo"
	}), "&")
}

// undescribedHeaders reports which headers of a response are not described for it. Headers of any
// HTTP message need no description.
func undescribedHeaders(operation *v3.Operation, got answer) (wrong []string) {
	described := []string{"Content-Type", "Content-Length", "Connection", "Date"}
	response := operation.Responses.Codes.GetOrZero(fmt.Sprint(got.status))
	if response != nil && response.Headers != nil {
		for name := range response.Headers.KeysFromOldest() {
			described = append(described, http.CanonicalHeaderKey(name))
		}
	}
	for name := range got.headers {
		if !slices.Contains(described, name) {
			wrong = append(wrong, fmt.Sprintf("the header %s is not described for %s, status %d", name, operation.OperationId, got.status))
		}
	}
	return wrong
}

// reasons are the messages of a validator's errors.
func reasons(found []*validation.ValidationError) (wrong []string) {
	for _, e := range found {
		reason := "api/openapi.yaml: " + e.Message + ": " + e.Reason
		for _, s := range e.SchemaValidationErrors {
			reason += fmt.Sprintf("; %s at /%s (%s)", s.Reason, strings.Join(s.InstancePath, "/"), s.KeywordLocation)
		}
		wrong = append(wrong, fmt.Sprintf("%.1500s", reason))
	}
	return wrong
}
