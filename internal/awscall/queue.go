package awscall

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// Queue is a standard queue of SQS. Its messages may arrive twice and in any order.
type Queue struct {
	Client   *Client
	URL      string // the queue's
	Region   string
	Endpoint string // empty is the host of URL
}

// Limits of SendMessageBatch. Source: the SQS API reference.
const (
	maxMessages = 10
	maxBytes    = 256 << 10
	maxDelay    = 15 * time.Minute
)

// batchesAtOnce is how many calls Send makes at once.
const batchesAtOnce = 10

// sendAttempts is how often a message is sent in all, if SQS takes no notice of it.
const sendAttempts = 3

// retryPause is the pause before the second attempt. Each further one is twice as long.
const retryPause = 100 * time.Millisecond

type entry struct {
	ID    string `json:"Id"`
	Body  string `json:"MessageBody"`
	Delay int    `json:"DelaySeconds,omitempty"` // a 0 would override the queue's own
}

// Send sends the bodies as messages that become visible after the delay, in whole seconds, rounded
// up, and at most 15 minutes: a longer one is shortened. Without one (0) the queue's own delay
// counts. Messages that SQS does not store are sent again, a few times.
// The error says how many were not stored in the end, and the last reason. A message whose response
// was lost may be there twice.
func (q *Queue) Send(ctx context.Context, bodies []string, delay time.Duration) error {
	seconds := int((min(max(delay, 0), maxDelay) + time.Second - 1) / time.Second)
	var batches [][]entry
	for len(bodies) > 0 {
		n := batch(bodies)
		entries := make([]entry, n)
		for i, body := range bodies[:n] {
			entries[i] = entry{strconv.Itoa(i), body, seconds}
		}
		batches, bodies = append(batches, entries), bodies[n:]
	}
	failed := make([]error, len(batches))
	var sending errgroup.Group
	sending.SetLimit(batchesAtOnce)
	for i, entries := range batches {
		sending.Go(func() error {
			if left, err := q.sendBatch(ctx, entries); err != nil {
				failed[i] = fmt.Errorf("%d of %d messages were not sent to SQS: %w", left, len(entries), err)
			}
			return nil
		})
	}
	_ = sending.Wait()
	return errors.Join(failed...)
}

// batch returns how many of the first bodies fit in a call.
func batch(bodies []string) int {
	size := 0
	for i, body := range bodies {
		if size += len(body); i == maxMessages || size > maxBytes {
			return max(i, 1)
		}
	}
	return len(bodies)
}

// sendBatch sends the entries until SQS has stored or refused each of them, or no attempt is left.
// It returns how many are not stored, and the last reason.
func (q *Queue) sendBatch(ctx context.Context, entries []entry) (left int, reason error) {
	refused := 0
	for attempt := range sendAttempts {
		if attempt > 0 {
			select {
			case <-ctx.Done():
				return refused + len(entries), reason
			case <-time.After(retryPause << (attempt - 1)):
			}
		}
		var out struct {
			Successful []struct {
				ID string `json:"Id"`
			}
			Failed []struct {
				ID          string `json:"Id"`
				SenderFault bool
				Code        string
				Message     string
			}
		}
		err := q.Client.JSON(ctx, q.call("SendMessageBatch"), map[string]any{"QueueUrl": q.URL, "Entries": entries}, &out)
		if e, ok := errors.AsType[*Error](err); ok && !e.Temporary() || errors.Is(err, ErrCredentials) {
			return refused + len(entries), err
		}
		if err != nil {
			reason = err
			continue
		}
		done := map[string]bool{}
		for _, s := range out.Successful {
			done[s.ID] = true
		}
		entries = slices.DeleteFunc(entries, func(e entry) bool { return done[e.ID] })
		if len(entries) > 0 {
			reason = errors.New("the response does not name them")
		}
		for _, f := range out.Failed {
			reason = fmt.Errorf("%s: %s", f.Code, f.Message)
			if f.SenderFault {
				before := len(entries)
				entries = slices.DeleteFunc(entries, func(e entry) bool { return e.ID == f.ID })
				refused += before - len(entries)
			}
		}
		if len(entries) == 0 {
			break
		}
	}
	if refused+len(entries) == 0 {
		return 0, nil
	}
	return refused + len(entries), reason
}

// call is one of SQS's JSON protocol. Source: "Making Amazon SQS requests using AWS JSON protocol".
func (q *Queue) call(operation string) Call {
	at := q.Endpoint
	if u, err := url.Parse(q.URL); at == "" && err == nil {
		at = u.Scheme + "://" + u.Host + "/"
	}
	return Call{URL: at, Service: "sqs", Region: q.Region, ContentType: "application/x-amz-json-1.0", Target: "AmazonSQS." + operation}
}
