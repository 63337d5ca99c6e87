package lambdahost_test

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/lambdahost"
)

// For all responses, whatever their bytes and however their writes are split, API Gateway reads the
// same from ours as from the adapter's own response half, encoded by aws-lambda-go.
func TestResponse_IsTheAdapters(t *testing.T) {
	t.Parallel()
	request := event(t, "/org/o/usageRecordGroup", "", nil)
	rapid.Check(t, func(t *rapid.T) {
		handler := drawAnswer(t)
		ours, err := lambdahost.Handler(handler, slog.New(slog.DiscardHandler)).Invoke(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := lambda.NewHandler(httpadapter.NewV2(handler).ProxyWithContext).Invoke(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(read(t, theirs), read(t, ours)); diff != "" {
			t.Error(diff)
		}
	})
}

// drawAnswer is a handler with a response of any status, headers and bytes.
func drawAnswer(t *rapid.T) http.HandlerFunc {
	header := http.Header(rapid.MapOfN(
		rapid.SampledFrom([]string{"Content-Encoding", "Etag", "Link", "Set-Cookie", "Vary", "X-\xff"}),
		rapid.SliceOfN(rapid.SampledFrom([]string{"gzip", `"1", "2"`, "", "ü<&>", "\xff\x00", "a=b; Path=/"}), 1, 3), 0, 4).Draw(t, "header"))
	piece := rapid.OneOf(
		rapid.SliceOf(rapid.Byte()),
		rapid.SliceOf(rapid.ByteRange(0, 0x7f)),
		rapid.Map(rapid.StringOfN(rapid.SampledFrom([]rune(`"\{}:,x<>&`+"\x00\x1f\x7f\t\nü\u2028😀")), 0, 40, -1), func(s string) []byte { return []byte(s) }),
	)
	body := bytes.Join(rapid.SliceOfN(piece, 0, 3).Draw(t, "body"), nil)
	cuts := rapid.SliceOfN(rapid.IntRange(0, len(body)), 0, 3).Draw(t, "cuts")
	status := rapid.SampledFrom([]int{0, 200, 201, 400, 503, 999}).Draw(t, "status") // 0: no WriteHeader before Write
	if status != 0 || rapid.Bool().Draw(t, "typed") {
		header.Set("Content-Type", "application/json; charset=utf-8")
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		if status != 0 {
			w.WriteHeader(status)
		}
		written := 0
		for _, cut := range cuts {
			if cut > written {
				_, _ = w.Write(body[written:cut])
				written = cut
			}
		}
		_, _ = w.Write(body[written:])
	}
}

// read returns the response as a client receives it: the bytes of the body.
func read(t *rapid.T, answer []byte) events.APIGatewayV2HTTPResponse {
	response := decoded(t, answer)
	if response.IsBase64Encoded {
		body, err := base64.StdEncoding.DecodeString(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		response.Body, response.IsBase64Encoded = string(body), false
	}
	if len(response.Cookies) == 0 {
		response.Cookies = nil
	}
	return response
}

// As in net/http, unlike in the adapter: the first status is the response's, with the headers set
// by then.
func TestResponse_BeginsOnce(t *testing.T) {
	t.Parallel()
	response, _ := invoke(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte("first "))
		_, _ = w.Write([]byte("second"))
		if c := http.NewResponseController(w); c.EnableFullDuplex() == nil || c.Flush() == nil {
			t.Error("the envelope leaves at once or not at all")
		}
	}, event(t, "/", "", nil))
	if response.StatusCode != http.StatusTeapot || response.Headers["Content-Type"] != "text/plain" || response.Body != "first second" {
		t.Errorf("%+v", response)
	}
}

// A body with a Content-Encoding is in base64, even if its bytes happen to be text.
func TestResponse_EncodedBodyIsInBase64(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "text", "\x1f\x8b\x08\xff" + strings.Repeat("x", 1000)} {
		response, _ := invoke(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte(body))
		}, event(t, "/", "", nil))
		if !response.IsBase64Encoded || response.Body != base64.StdEncoding.EncodeToString([]byte(body)) {
			t.Errorf("%+v", response)
		}
	}
}
