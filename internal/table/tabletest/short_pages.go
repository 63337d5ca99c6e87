package tabletest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
)

// ShortPages is a transport for NewClient under which a Query that is not consistent, as those of
// indexes and of lists are, reads at most n items before its filter; DynamoDB reads 1 MB of them.
// DynamoDB Local counts the megabyte after the filter, and so never returns an empty response
// before the last.
func ShortPages(next http.RoundTripper, n int) http.RoundTripper { return shortPages{next, n} }

type shortPages struct {
	next http.RoundTripper
	n    int
}

func (t shortPages) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Header.Get("X-Amz-Target") != "DynamoDB_20120810.Query" {
		return t.next.RoundTrip(request)
	}
	body, err := io.ReadAll(request.Body)
	request.Body.Close()
	if err != nil {
		return nil, err
	}
	var query map[string]any
	if err := json.Unmarshal(body, &query); err != nil {
		return nil, err
	}
	limit, limited := query["Limit"].(float64)
	if consistent, _ := query["ConsistentRead"].(bool); !consistent && (!limited || limit > float64(t.n)) {
		query["Limit"] = t.n
		if body, err = json.Marshal(query); err != nil {
			return nil, err
		}
	}
	request = request.Clone(request.Context())
	request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return t.next.RoundTrip(request)
}
