package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
)

// BenchmarkValidate measures the whole operation on 1,000 groups, in comparison with the decoding
// alone of the same body by encoding/json.
func BenchmarkValidate(b *testing.B) {
	body := batch(1000)
	handler := validator()
	validate := func() {
		request := httptest.NewRequest(http.MethodPost, validation, bytes.NewReader(body))
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != http.StatusOK {
			b.Fatal(answer.Body)
		}
	}
	decode := func() {
		var groups []struct {
			EntitlementID   string                 `json:"entitlementID"`
			Timestamp       *time.Time             `json:"timestamp"`
			Records         map[string]json.Number `json:"records"`
			BillableRecords []struct {
				Key        string         `json:"key"`
				Properties map[string]any `json:"properties"`
				Quantity   json.Number    `json:"quantity"`
			} `json:"billableRecords"`
			MetaInfo struct {
				SkipValidation bool   `json:"SkipValidation"`
				Source         string `json:"source"`
			} `json:"metaInfo"`
		}
		if err := json.Unmarshal(body, &groups); err != nil {
			b.Fatal(err)
		}
	}
	m := figure.InTurns(figure.Rounds(b, 101), figure.Milliseconds(validate), figure.Milliseconds(decode))
	b.Logf("medians: validate %.2f ms, decode %.2f ms", m.Median(0), m.Median(1))
	figure.Print("validate-vs-decode", m.Ratio(0, 1), "times", "<= 2")
}

// batch makes the body of n groups, alternating v1 and v2.
func batch(n int) []byte {
	body := []byte{'['}
	for i := range n {
		if i > 0 {
			body = append(body, ',')
		}
		if i%2 == 0 {
			body = fmt.Appendf(body, `{"entitlementID":"ent-%05d","timestamp":"2026-03-01T12:%02d:00.000Z",
				"records":{"cpu hours":%d.25,"storage-gb":%d,"requests":9007199254740993},"metaInfo":{"source":"API"}}`, i, i%60, i, i)
		} else {
			body = fmt.Appendf(body, `{"entitlementID":"ent-%05d","timestamp":"2026-03-01T12:%02d:00Z",
				"billableRecords":[{"key":"api_calls","properties":{"region":"eu-west-1","tier":%d},"quantity":%d},{"key":"seats","quantity":3}]}`, i, i%60, i%3, i+1)
		}
	}
	return append(body, ']')
}
