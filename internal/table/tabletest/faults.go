package tabletest

import (
	"bytes"
	"context"
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

// Faults is a transport below the check of responses. It makes attempts fail as planned.
type Faults struct {
	mu    sync.Mutex
	plan  Plan
	tries int
}

// Plan returns how a request fails; nil is not at all. It is called for one request at a time. The
// first is try 0, and each retry has another number. It may read the body and replace it.
type Plan func(try int, request *http.Request) Fault

// Fault returns the result of one attempt; send really sends the request.
type Fault func(send func() (*http.Response, error)) (*http.Response, error)

// NewFaults returns a client of the test's DynamoDB Local whose first attempts have these faults.
func NewFaults(faults ...Fault) (*dynamodb.Client, *Faults) {
	f := Planned(func(try int, _ *http.Request) Fault {
		if try < len(faults) {
			return faults[try]
		}
		return nil
	})
	return NewClient(Recorded(f)), f
}

// Planned returns a transport whose requests fail as planned.
func Planned(plan Plan) *Faults { return &Faults{plan: plan} }

// Tries returns the number of requests, retries included.
func (f *Faults) Tries() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries
}

// transport is shared by all clients here, and so are its connections. On a busy machine DynamoDB
// Local takes over 10 seconds for an item of 392 KB with 67,000 members.
var transport = dynamoclient.NewTransport(time.Minute)

// RoundTrip implements http.RoundTripper.
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
		response, err := sendToEnd(request)
		if err != nil || response.Header.Get(checksum) != "" {
			return response, err
		}
		// An error. AWS sends its checksum too, so that a spoilt error is recognized.
		return change(response, func(body []byte) ([]byte, error) { return body, nil })
	})
}

// sendToEnd returns the error of the request's context if that ends before the response, but waits
// for the response: what a test then finds stored is all that the request does. A request that
// arrives after its client gave up is a fault of its own, Late. A client without faults does not
// wait.
func sendToEnd(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	response, err := transport.RoundTrip(request.WithContext(context.WithoutCancel(ctx)))
	if gone := ctx.Err(); gone != nil {
		if err == nil {
			err = response.Body.Close()
		}
		return nil, errors.Join(gone, err)
	}
	return response, err
}

func setBody(request *http.Request, body []byte) {
	request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	request.Body, _ = request.GetBody()
	request.ContentLength = int64(len(body))
}

const checksum = "X-Amz-Crc32"

// change replaces the response's body by another with a valid checksum.
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

// Pass changes nothing.
func Pass(send func() (*http.Response, error)) (*http.Response, error) { return send() }

// Drop never sends the request.
func Drop(func() (*http.Response, error)) (*http.Response, error) {
	return nil, errors.New("fault: the connection was refused")
}

// Throttle never sends the request: the table's throughput is exceeded.
func Throttle(send func() (*http.Response, error)) (*http.Response, error) {
	return answering(http.StatusBadRequest, errorJSON("ProvisionedThroughputExceededException", ""))(send)
}

// TooLarge never sends the request, an update: it would make the item too large.
func TooLarge(send func() (*http.Response, error)) (*http.Response, error) {
	const body = `{"__type":"com.amazonaws.dynamodb.v20120810#ValidationException","message":"Item size to update has exceeded the maximum allowed size"}`
	return answering(http.StatusBadRequest, body)(send)
}

// answering never sends the request. It returns a response with that status and body.
func answering(status int, body string) Fault {
	return func(func() (*http.Response, error)) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, ContentLength: -1,
			Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	}
}

// errorJSON is an error of DynamoDB; members are additional members of it.
func errorJSON(code, members string) string {
	return `{"__type":"com.amazonaws.dynamodb.v20120810#` + code + `","message":"secret"` + members + `}`
}

// Lose sends the request, which is carried out, and loses the response.
func Lose(send func() (*http.Response, error)) (*http.Response, error) {
	response, err := send()
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
		err = errors.Join(errors.New("fault: the answer was lost"), err, response.Body.Close())
	}
	return nil, err
}

// Cut ends the response in its middle, as a broken connection does.
func Cut(send func() (*http.Response, error)) (*http.Response, error) {
	return spoil(send, func(body []byte) io.Reader {
		return io.MultiReader(bytes.NewReader(body[:len(body)/2]), brokenReader{})
	})
}

// Short ends the response in its middle as if that were its end.
func Short(send func() (*http.Response, error)) (*http.Response, error) {
	return spoil(send, func(body []byte) io.Reader { return bytes.NewReader(body[:len(body)/2]) })
}

// Flip changes one bit of the response.
func Flip(send func() (*http.Response, error)) (*http.Response, error) {
	return spoil(send, func(body []byte) io.Reader {
		body[len(body)/2] ^= 1
		return bytes.NewReader(body)
	})
}

// Empty removes the body of the response; the status and headers stay.
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
