package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// sameSize replays DynamoDB's response to a request with the same action and size: the SDK writes
// the members of a key in any order.
type sameSize struct {
	mu      sync.Mutex
	answers map[string]kept
}

// RoundTrip sends a request that was not sent before to DynamoDB Local.
func (s *sameSize) RoundTrip(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	_ = request.Body.Close()
	key := fmt.Sprint(request.Header.Get("X-Amz-Target"), len(body))
	s.mu.Lock()
	k, ok := s.answers[key]
	s.mu.Unlock()
	if !ok {
		request.Body = io.NopCloser(bytes.NewReader(body))
		response, err := dynamoDB.RoundTrip(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		k = kept{status: response.StatusCode, header: response.Header}
		if k.body, err = io.ReadAll(response.Body); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.answers[key] = k
		s.mu.Unlock()
	}
	return &http.Response{
		Status: http.StatusText(k.status), StatusCode: k.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: k.header, ContentLength: int64(len(k.body)), Body: io.NopCloser(bytes.NewReader(k.body)), Request: request,
	}, nil
}

// BenchmarkValidate measures batch validate on 1,000 groups of 100 entitlements with 50 dimensions
// each, plain and explained, from the HTTP request to the response, in comparison with the decoding
// alone of the same body by encoding/json: the processor time of each. DynamoDB's responses are
// recorded.
func BenchmarkValidate(b *testing.B) {
	const entitlements, dimensions = 100, 50
	client, name := tabletest.Client(b)
	stored := table.New(client, name)
	for i := range entitlements {
		putEntitlement(b, stored, "bench", fmt.Sprintf("ent-%05d", i), dimensions)
	}
	api := &httpapi.API{
		Table: table.New(tabletest.NewClient(&sameSize{answers: map[string]kept{}}), name), Log: slog.New(slog.NewJSONHandler(io.Discard, nil)),
		Now: time.Now, CountUnits: table.CountUnits, Authenticate: anyone,
	}
	handler := api.Handler("validate")
	body := batchOf(thousand, entitlements)
	validate := func(query string) func() {
		request := func() *http.Request {
			return httptest.NewRequest(http.MethodPost, "/org/bench/batchValidateUsageRecordGroups"+query, bytes.NewReader(body))
		}
		if got := answer(b, handler, request()); query == "" && string(got) != `""` || !bytes.HasSuffix(got, []byte(`"valid":true}`)) && query != "" {
			b.Fatalf("%.1000s", got)
		}
		return func() { handler.ServeHTTP(discarding{http.Header{}}, request()) }
	}
	decode := func() {
		var groups []struct {
			EntitlementID string                 `json:"entitlementID"`
			Timestamp     *time.Time             `json:"timestamp"`
			Records       map[string]json.Number `json:"records"`
			MetaInfo      struct {
				SkipValidation bool   `json:"SkipValidation"`
				Source         string `json:"source"`
			} `json:"metaInfo"`
		}
		if err := json.Unmarshal(body, &groups); err != nil {
			b.Fatal(err)
		}
	}
	m := figure.InTurns(figure.Rounds(b, 31), cpuOf(4, validate("")), cpuOf(4, validate("?explain=true")), cpuOf(8, decode))
	b.Logf("CPU, medians: validate %.2f ms, explained %.2f ms, decode %.2f ms; the body has %d KB", m.Median(0), m.Median(1), m.Median(2), len(body)>>10)
	figure.Print("validate-vs-decode", m.Ratio(0, 2), "times", "<= 2")
	figure.Print("explain-vs-decode", m.Ratio(1, 2), "times", "<= 4")
}

// putEntitlement stores an entitlement.
func putEntitlement(b testing.TB, stored *table.Table, org metering.OrgID, id string, dimensions int) {
	b.Helper()
	body := fmt.Appendf(nil, `{"partner":"AWS","buyerID":"buyer-%s","marketplace":{"customerIdentifier":"c-%s","productCode":"p"},"info":{"currency":"USD","dimensions":[`, id, id)
	for d := range dimensions {
		if d > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"key":"dimension_%02d","name":"Dimension %d","description":"what a buyer uses","rate":0.%02d}`, d, d, d+1)
	}
	sent, err := wire.DecodeEntitlement(append(body, "]}}"...))
	if err != nil {
		b.Fatal(err)
	}
	change, err := metering.NewEntitlementChange(org, metering.EntitlementID(id), &sent, metering.Conditions{}, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := stored.PutEntitlement(b.Context(), &change); err != nil {
		b.Fatal(err)
	}
}

// batchOf makes the body of n groups of the entitlements, in turns, that were used just now.
func batchOf(n, entitlements int) []byte {
	body := []byte{'['}
	at := time.Now().Add(-time.Minute)
	for i := range n {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"entitlementID":"ent-%05d","timestamp":"%s","records":{"dimension_%02d":%d.25,"dimension_%02d":%d,"dimension_%02d":123456789},"metaInfo":{"source":"API"}}`,
			i%entitlements, metering.FormatTime(at), i%17, i+1, 17+i%17, i+1, 34+i%16)
	}
	return append(body, ']')
}
