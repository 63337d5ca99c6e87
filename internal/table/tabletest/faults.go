package tabletest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
)

// Faults is a transport below the check of answers that spoils tries on purpose, in the order given;
// later tries pass.
type Faults struct {
	mu     sync.Mutex
	faults []Fault
	tries  int
}

// Fault makes what one try comes to; send sends the request for real.
type Fault func(send func() (*http.Response, error)) (*http.Response, error)

// NewFaults makes a client of the test's DynamoDB Local whose first tries go wrong in these ways.
func NewFaults(faults ...Fault) (*dynamodb.Client, *Faults) {
	f := &Faults{faults: faults}
	return NewClient(recorder{next: f}), f
}

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
	f.mu.Lock()
	fault := Pass
	if f.tries < len(f.faults) {
		fault = f.faults[f.tries]
	}
	f.tries++
	f.mu.Unlock()
	return fault(func() (*http.Response, error) { return transport.RoundTrip(request) })
}

// Pass spoils nothing.
func Pass(send func() (*http.Response, error)) (*http.Response, error) { return send() }

// Drop never sends the request.
func Drop(func() (*http.Response, error)) (*http.Response, error) {
	return nil, errors.New("fault: the connection was refused")
}

// Throttle never sends the request: the table is asked too much.
func Throttle(func() (*http.Response, error)) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, ContentLength: -1,
		Body: io.NopCloser(strings.NewReader(`{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"secret"}`)),
	}, nil
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
