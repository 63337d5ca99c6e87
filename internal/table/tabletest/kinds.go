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

// Kind is a way in which requests go wrong, among them what DynamoDB Local never says by itself.
type Kind struct {
	Name string
	Of   func(*http.Request) Fault // nil where no such request goes wrong in this way
}

// Kinds are all ways in which one try can go wrong while others pass; Late.Kind is one more.
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

// failLate sends the request, which is carried out, and answers 500: by that DynamoDB says nothing
// of whether it was.
func failLate(send func() (*http.Response, error)) (*http.Response, error) {
	if _, err := Lose(send); errors.Is(err, context.Canceled) {
		return nil, err
	}
	return answering(http.StatusInternalServerError, errorJSON("InternalServerError", ""))(send)
}

// slow hands the answer over a while later.
func slow(request *http.Request) Fault { return Delay(request.Context(), 40*time.Millisecond) }

// Delay hands the answer over later, or never where ctx ends before.
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

// conflicts is what AWS says to a write that meets a transaction on the same item, and to a
// transaction that meets any write. Nothing is done then.
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

// inTransaction answers a transaction of so many items with an error.
func inTransaction(body func(items int) string) func(*http.Request) Fault {
	return func(request *http.Request) Fault {
		var sent struct{ TransactItems []json.RawMessage }
		if Action(request) != "TransactWriteItems" || readBody(request, &sent) != nil {
			return nil
		}
		return answering(http.StatusBadRequest, body(len(sent.TransactItems)))
	}
}

// cancelled is the error of a transaction whose last item is the reason.
func cancelled(items int, reason string) string {
	reasons := slices.Repeat([]string{`{"Code":"None"}`}, items)
	reasons[items-1] = `{"Code":"` + reason + `"}`
	return errorJSON("TransactionCanceledException", `,"CancellationReasons":[`+strings.Join(reasons, ",")+`]`)
}

// partial does the first half of a batch, and gives the rest back as unprocessed; of a batch of one
// nothing.
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
	if !some { // DynamoDB takes no batch of nothing
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

// Action is what the request asks DynamoDB to do, as in PutItem.
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

// Late holds requests that arrive when nobody waits for their answers any more.
type Late struct {
	mu   sync.Mutex
	held []func() (*http.Response, error)
}

// Kind is to be given up and to arrive late.
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

// Arrive lets all that were held arrive, the oldest first, and returns how many there were.
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
