package tabletest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Kind is a way in which requests fail. Some of them never occur in DynamoDB Local.
type Kind struct {
	Name string
	Of   func(*http.Request) Fault // nil if such a request does not fail in this way
}

// Kinds are all ways in which one attempt can fail while others pass; Late.Kind is one more.
var Kinds = []Kind{
	{"dropped", of(Drop)},
	{"lost", of(Lose)},
	{"cut", of(Cut)},
	{"short", of(Short)},
	{"flipped", of(Flip)},
	{"empty", of(Empty)},
	{"slow", slow},
	{"over the table's throughput", of(Throttle)},
	{"throttled", of(answering(http.StatusBadRequest, errorJSON("ThrottlingException", "")))},
	{"500", of(answering(http.StatusInternalServerError, errorJSON("InternalServerError", "")))},
	{"500 and done all the same", of(failLate)},
	{"503", of(answering(http.StatusServiceUnavailable, "<html><body>Service Unavailable</body></html>"))},
	{"in conflict", conflicts("TransactionConflict")},
	{"in a throttled transaction", inTransaction(func(items int) string { return cancelled(items, "ThrottlingError") })},
	{"in a transaction under way", inTransaction(func(int) string { return errorJSON("TransactionInProgressException", "") })},
	{"done in part", partial},
}

func of(f Fault) func(*http.Request) Fault { return func(*http.Request) Fault { return f } }

// failLate sends the request, which is carried out, and responds with 500. That status does not say
// whether the request was carried out.
func failLate(send func() (*http.Response, error)) (*http.Response, error) {
	if _, err := Lose(send); errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return answering(http.StatusInternalServerError, errorJSON("InternalServerError", ""))(send)
}

// slow delays the response for a short time.
func slow(request *http.Request) Fault { return Delay(request.Context(), 40*time.Millisecond) }

// Delay returns the response later, or an error if ctx ends before.
func Delay(ctx context.Context, by time.Duration) Fault {
	return func(send func() (*http.Response, error)) (*http.Response, error) {
		response, err := send()
		if err != nil {
			return nil, err
		}
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
			return response, nil
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), response.Body.Close())
		}
	}
}

// conflicts is the response of AWS to a write that conflicts with a transaction on the same item,
// and to a transaction that conflicts with any write. Nothing is written then.
func conflicts(reason string) func(*http.Request) Fault {
	transaction := inTransaction(func(items int) string { return cancelled(items, reason) })
	return func(request *http.Request) Fault {
		switch Action(request) {
		case "PutItem", "UpdateItem", "DeleteItem":
			return answering(http.StatusBadRequest, errorJSON(reason+"Exception", ""))
		}
		return transaction(request)
	}
}

// inTransaction responds to a transaction with an error; body gets the number of its items.
func inTransaction(body func(items int) string) func(*http.Request) Fault {
	return func(request *http.Request) Fault {
		var sent struct{ TransactItems []json.RawMessage }
		if Action(request) != "TransactWriteItems" || readBody(request, &sent) != nil {
			return nil
		}
		return answering(http.StatusBadRequest, body(len(sent.TransactItems)))
	}
}

// cancelled is the error of a transaction that failed at its last item, for that reason.
func cancelled(items int, reason string) string {
	reasons := slices.Repeat([]string{`{"Code":"None"}`}, items)
	reasons[items-1] = `{"Code":"` + reason + `"}`
	return errorJSON("TransactionCanceledException", `,"CancellationReasons":[`+strings.Join(reasons, ",")+`]`)
}

// partial carries out the first half of a batch, and returns the rest as unprocessed. It carries
// out nothing of a batch of one.
func partial(request *http.Request) Fault {
	batches := map[string]string{"BatchGetItem": "UnprocessedKeys", "BatchWriteItem": "UnprocessedItems"}
	unprocessed, ok := batches[Action(request)]
	var sent map[string]any
	if !ok || readBody(request, &sent) != nil {
		return nil
	}
	tables := sent["RequestItems"].(map[string]any)
	rest, some := map[string]any{}, false
	for name, batch := range tables {
		switch batch := batch.(type) {
		case []any:
			tables[name], rest[name] = batch[:len(batch)/2], batch[len(batch)/2:]
			some = some || len(batch) > 1
		case map[string]any:
			keys := batch["Keys"].([]any)
			rest[name] = map[string]any{"Keys": keys[len(keys)/2:], "ConsistentRead": batch["ConsistentRead"]}
			batch["Keys"] = keys[:len(keys)/2]
			some = some || len(keys) > 1
		}
	}
	if !some { // DynamoDB accepts no empty batch
		return nil
	}
	body, err := json.Marshal(sent)
	if err != nil {
		return nil
	}
	setBody(request, body)
	return func(send func() (*http.Response, error)) (*http.Response, error) {
		response, err := send()
		if err != nil || response.StatusCode != http.StatusOK {
			return response, err
		}
		return change(response, func(body []byte) ([]byte, error) {
			var answer map[string]any
			if err := json.Unmarshal(body, &answer); err != nil {
				return nil, err
			}
			answer[unprocessed] = rest
			return json.Marshal(answer)
		})
	}
}

// Action returns the action that the request names, such as PutItem.
func Action(request *http.Request) string {
	_, action, _ := strings.Cut(request.Header.Get("X-Amz-Target"), ".")
	return action
}

func readBody(request *http.Request, into any) error {
	body, err := request.GetBody()
	if err != nil {
		return err
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// Late holds requests until no client waits for their responses any more.
type Late struct {
	mu   sync.Mutex
	held []func() (*http.Response, error)
}

// Kind makes a request fail by a timeout and holds it until Arrive.
func (l *Late) Kind() Kind {
	return Kind{"late", func(request *http.Request) Fault {
		*request = *request.WithContext(context.WithoutCancel(request.Context()))
		return func(send func() (*http.Response, error)) (*http.Response, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.held = append(l.held, send)
			return nil, errors.New("fault: no answer in time")
		}
	}}
}

// Arrive sends all held requests, the oldest first, and returns their number.
func (l *Late) Arrive() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.held
	l.held = nil
	for _, send := range held {
		response, err := send()
		if err == nil {
			err = response.Body.Close()
		}
		if err != nil {
			return 0, err
		}
	}
	return len(held), nil
}
