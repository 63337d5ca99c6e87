package tabletest

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
)

// Faults is a transport below the check of answers that spoils tries on purpose, as planned.
type Faults struct {
	mu    sync.Mutex
	plan  Plan
	tries int
}

// Plan tells how a request goes wrong; nil is not at all. It is asked about one request at a time,
// the first being try 0, each retry another. It may read the body and replace it.
type Plan func(try int, request *http.Request) Fault

// Fault makes what one try comes to; send sends the request for real.
type Fault func(send func() (*http.Response, error)) (*http.Response, error)

// NewFaults makes a client of the test's DynamoDB Local whose first tries go wrong in these ways.
func NewFaults(faults ...Fault) (*dynamodb.Client, *Faults) {
	f := Planned(func(try int, _ *http.Request) Fault {
		if try < len(faults) {
			return faults[try]
		}
		return nil
	})
	return NewClient(Recorded(f)), f
}

// Planned is the transport whose requests go wrong as planned.
func Planned(plan Plan) *Faults { return &Faults{plan: plan} }

// Tries is how many requests there were, retries among them.
func (f *Faults) Tries() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries
}

// transport is below every client here: they share its connections.
var transport = dynamoclient.NewTransport(10 * time.Second)

// RoundTrip is http.RoundTripper's.
func (f *Faults) RoundTrip(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err := errors.Join(err, request.Body.Close()); err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	setBody(request, body)
	f.mu.Lock()
	fault := f.plan(f.tries, request)
	f.tries++
	f.mu.Unlock()
	if fault == nil {
		fault = Pass
	}
	return fault(func() (*http.Response, error) {
		response, err := transport.RoundTrip(request)
		if err != nil || response.Header.Get(checksum) != "" {
			return response, err
		}
		// An error, which AWS sends with its checksum too, so that a spoilt one is told.
		return change(response, func(body []byte) ([]byte, error) { return body, nil })
	})
}

func setBody(request *http.Request, body []byte) {
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	request.Body, _ = request.GetBody()
	request.ContentLength = int64(len(body))
}

const checksum = "X-Amz-Crc32"

// change makes the answer another that is as good as DynamoDB's.
func change(response *http.Response, how func(body []byte) ([]byte, error)) (*http.Response, error) {
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if body, err = how(body); err != nil {
		return nil, err
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	response.Header.Set(checksum, strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10))
	return response, nil
}

// Pass spoils nothing.
func Pass(send func() (*http.Response, error)) (*http.Response, error) { return send() }

// Drop never sends the request.
func Drop(func() (*http.Response, error)) (*http.Response, error) {
	return nil, errors.New("fault: the connection was refused")
}

// Throttle never sends the request: the table is asked too much.
func Throttle(send func() (*http.Response, error)) (*http.Response, error) {
	return answering(http.StatusBadRequest, errorJSON("ProvisionedThroughputExceededException", ""))(send)
}

// answering never sends the request.
func answering(status int, body string) Fault {
	return func(func() (*http.Response, error)) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, ContentLength: -1,
			Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	}
}

// errorJSON is an error of DynamoDB's; members are further ones of it.
func errorJSON(code, members string) string {
	return `{"__type":"com.amazonaws.dynamodb.v20120810#` + code + `","message":"secret"` + members + `}`
}

// Lose sends the request, which is carried out, and loses the answer.
func Lose(send func() (*http.Response, error)) (*http.Response, error) {
	response, err := send()
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		err = errors.Join(errors.New("fault: the answer was lost"), err, response.Body.Close())
	}
	return nil, err
}

// Cut ends the answer in its middle, as a connection that breaks does.
func Cut(send func() (*http.Response, error)) (*http.Response, error) {
	return spoil(send, func(body []byte) io.Reader {
		return io.MultiReader(bytes.NewReader(body[:len(body)/2]), brokenReader{})
	})
}

// Short ends the answer in its middle as if that were its end.
func Short(send func() (*http.Response, error)) (*http.Response, error) {
	return spoil(send, func(body []byte) io.Reader { return bytes.NewReader(body[:len(body)/2]) })
}

// Flip changes one bit of the answer.
func Flip(send func() (*http.Response, error)) (*http.Response, error) {
	return spoil(send, func(body []byte) io.Reader {
		body[len(body)/2] ^= 1
		return bytes.NewReader(body)
	})
}

// Empty answers nothing, with the status and headers of the answer.
func Empty(send func() (*http.Response, error)) (*http.Response, error) {
	return spoil(send, func([]byte) io.Reader { return bytes.NewReader(nil) })
}

func spoil(send func() (*http.Response, error), how func([]byte) io.Reader) (*http.Response, error) {
	response, err := send()
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	response.Body, response.ContentLength = io.NopCloser(how(body)), -1
	return response, nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
