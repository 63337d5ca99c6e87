package bench

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
)

// recording replays DynamoDB's responses as often as requested. The first time, it sends the
// request to DynamoDB Local and stores the response with its headers. A request is identified by
// its action and the number of requests of that action since rewind; the rest of a request varies.
type recording struct {
	mu      sync.Mutex
	answers map[string][]kept // by action
	asked   map[string]int    // since rewind
}

type kept struct {
	status int
	header http.Header
	body   []byte
}

func newRecording() *recording {
	return &recording{answers: map[string][]kept{}, asked: map[string]int{}}
}

// dynamoDB is patient: DynamoDB Local takes some time to delete a large table.
var dynamoDB = dynamoclient.NewTransport(time.Minute)

// rewind makes the responses begin again.
func (r *recording) rewind() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.asked)
}

// bodies are the stored responses to an action, such as "Query", in order.
func (r *recording) bodies(action string) (all [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.answers["DynamoDB_20120810."+action] {
		all = append(all, k.body)
	}
	return all
}

// RoundTrip is for a client in this process.
func (r *recording) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Body != nil {
		defer request.Body.Close()
	}
	k, err := r.answer(request)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		Status: http.StatusText(k.status), StatusCode: k.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: k.header, ContentLength: int64(len(k.body)), Body: io.NopCloser(bytes.NewReader(k.body)), Request: request,
	}, nil
}

func (r *recording) answer(request *http.Request) (kept, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	action := request.Header.Get("X-Amz-Target")
	n := r.asked[action]
	r.asked[action]++
	if n < len(r.answers[action]) {
		return r.answers[action][n], nil
	}
	response, err := dynamoDB.RoundTrip(request)
	if err != nil {
		return kept{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return kept{}, err
	}
	k := kept{response.StatusCode, response.Header, body}
	r.answers[action] = append(r.answers[action], k)
	return k, nil
}

// serverOf is the recording as a server, for a client in another process. It sends requests without
// a stored response to the DynamoDB Local at endpoint.
func serverOf(r *recording, endpoint string) http.Handler {
	host := strings.TrimPrefix(endpoint, "http://")
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		onward := request.Clone(request.Context())
		onward.URL.Scheme, onward.URL.Host = "http", host
		onward.Body = io.NopCloser(bytes.NewReader(body))
		k, err := r.answer(onward)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		header := w.Header()
		for name, values := range k.header {
			header[name] = values
		}
		w.WriteHeader(k.status)
		_, _ = w.Write(k.body)
	})
}
