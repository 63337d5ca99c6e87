package operate_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/reporting/inprocess"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/sandbox"
)

// A loopback address may lead to AWS, through a tunnel or a proxy. The ARN of the table shows it.
func TestRun_IsOffBehindATunnelToAWS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d0 3")
	tunnel := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		request := r.Clone(r.Context())
		request.RequestURI = ""
		request.URL.Scheme, request.URL.Host, _ = strings.Cut(os.Getenv("DYNAMODB_ENDPOINT"), "://")
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Error(err)
		}
		body = bytes.ReplaceAll(body, []byte("ddblocal:000000000000"), []byte("us-east-1:123456789012"))
		rw.Header().Set("Content-Type", response.Header.Get("Content-Type"))
		rw.Header().Set("X-Amz-Crc32", fmt.Sprint(crc32.ChecksumIEEE(body)))
		rw.WriteHeader(response.StatusCode)
		_, _ = rw.Write(body)
	}))
	defer tunnel.Close()
	r := request(t, w)
	r.Target = stack.At(tunnel.URL, environment("TABLE_NAME", w.TableName)).Open(stack.Deadlines{Attempt: 20 * time.Second, Call: time.Minute})
	if _, err := operate.Run(t.Context(), r); !errors.Is(err, inprocess.ErrOff) || !strings.Contains(err.Error(), "is not DynamoDB Local") {
		t.Errorf("%v; want that reporting is off", err)
	}
	if n := len(w.Calls("BatchMeterUsage")); n > 0 {
		t.Errorf("%d calls were made", n)
	}
}
