package dynamoclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
)

// checkedTransport reads each response whole and checks it against DynamoDB's X-Amz-Crc32 before
// the SDK sees it. The SDK (v1.73.1) only logs a wrong checksum, takes an empty 200 for "not found"
// and does not retry a response that was cut; it does retry an error of the transport.
//
// A write whose response is refused may have been applied. The operation id of internal/table
// detects that.
type checkedTransport struct{ next http.RoundTripper }

type answerKey struct{}

// TakeAnswer returns a context for one Query or BatchGetItem at a time. The JSON of DynamoDB's
// response is stored in *answer, whose memory is reused if it is large enough, and the SDK gets an
// empty response. The SDK still handles errors, retries and signatures.
func TakeAnswer(ctx context.Context, answer *[]byte) context.Context {
	return context.WithValue(ctx, answerKey{}, answer)
}

func (t checkedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	taker, taken := request.Context().Value(answerKey{}).(*[]byte)
	taken = taken && response.StatusCode == http.StatusOK && mayBeTaken(request.Header.Get("X-Amz-Target"))
	var memory []byte
	if taken {
		memory = *taker
	}
	body, err := readAnswer(response, memory)
	if err != nil {
		return nil, fmt.Errorf("DynamoDB's answer with status %d can't be used: %w", response.StatusCode, err)
	}
	if taken {
		*taker, body = body, []byte("{}")
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	response.ContentLength = int64(len(body))
	return response, nil
}

func mayBeTaken(action string) bool {
	return action == "DynamoDB_20120810.Query" || action == "DynamoDB_20120810.BatchGetItem"
}

func readAnswer(response *http.Response, memory []byte) ([]byte, error) {
	defer response.Body.Close()
	buffer := bytes.NewBuffer(memory[:0])
	if response.ContentLength > 0 {
		buffer.Grow(int(response.ContentLength) + bytes.MinRead)
	}
	if _, err := buffer.ReadFrom(response.Body); err != nil {
		return nil, fmt.Errorf("it was cut after %d bytes: %w", buffer.Len(), err)
	}
	body := buffer.Bytes()
	sent := response.Header.Get("X-Amz-Crc32")
	if sent == "" {
		// DynamoDB Local sends no checksum with its errors. A server in front of DynamoDB may
		// respond with its own error, but never with 200; the body of a 4xx error is always JSON.
		if response.StatusCode == http.StatusOK {
			return nil, errors.New("it has no X-Amz-Crc32")
		}
		if response.StatusCode < http.StatusInternalServerError && !json.Valid(body) {
			return nil, errors.New("it is not JSON")
		}
		return body, nil
	}
	if len(body) == 0 && response.StatusCode == http.StatusOK {
		return nil, errors.New("it is empty")
	}
	if got := strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10); got != sent {
		return nil, fmt.Errorf("its checksum is %s and not %s", got, sent)
	}
	return body, nil
}
