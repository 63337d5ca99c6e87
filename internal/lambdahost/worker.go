package lambdahost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/marketmeter/marketmeter/internal/reporting"
)

// WorkLogged is the message of the log line of each hint that was worked on, and of each run of
// what is scheduled.
const WorkLogged = "work"

// Job is a function that reports usage. It has no client: it is called by a queue or by a schedule.
type Job struct {
	Name string // in the log and the metrics, as an operation's
	Log  *slog.Logger
	// CountUnits is that of the table.
	CountUnits func(context.Context) (context.Context, func() (read, write float64))

	begun atomic.Bool
}

// Messages makes work a Lambda function that an event source mapping calls with messages of SQS.
// The hints of a batch are worked on at once, each once. A message whose hint can't be read, or
// whose work fails or panics, is reported as failed (ReportBatchItemFailures): SQS delivers it
// again, and in the end moves it to the dead letters. It returns an error, as which all messages
// of the batch fail, only if the event has something else than messages.
func (j *Job) Messages(work func(context.Context, reporting.Hint) error) func(context.Context, events.SQSEvent) (events.SQSEventResponse, error) {
	return func(ctx context.Context, event events.SQSEvent) (events.SQSEventResponse, error) {
		log := j.invocation(ctx)
		ctx, cancel := withTimeToAnswer(ctx)
		defer cancel()
		hints := map[reporting.Hint][]string{} // ids of messages
		failed := []string{}
		for i := range event.Records {
			m := &event.Records[i]
			if m.MessageId == "" {
				return events.SQSEventResponse{}, errors.New("a record of the event is no message of SQS")
			}
			hint, err := reporting.DecodeHint(m.Body)
			if err != nil {
				// Not the body: what is not ours may hold anything.
				reporting.Count(ctx, log, reporting.EventUnreadableHint, 1, "messageId", m.MessageId, "bytes", len(m.Body), "error", err.Error())
				failed = append(failed, m.MessageId)
				continue
			}
			hints[hint] = append(hints[hint], m.MessageId)
		}
		if len(event.Records) == 0 {
			return events.SQSEventResponse{}, errors.New("the event has no messages of SQS")
		}
		var all sync.WaitGroup
		var mu sync.Mutex
		for hint, messages := range hints {
			all.Go(func() {
				err := j.run(ctx, log.With("hint", hint, "messageIds", messages), func(ctx context.Context) error { return work(ctx, hint) })
				if err != nil {
					mu.Lock()
					defer mu.Unlock()
					failed = append(failed, messages...)
				}
			})
		}
		all.Wait()
		response := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
		for _, id := range failed {
			response.BatchItemFailures = append(response.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: id})
		}
		return response, nil
	}
}

// Scheduled makes work a Lambda function that a schedule calls, whatever the event. If it fails,
// Lambda counts an error.
func (j *Job) Scheduled(work func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		log := j.invocation(ctx)
		ctx, cancel := withTimeToAnswer(ctx)
		defer cancel()
		return j.run(ctx, log, work)
	}
}

// invocation returns the log of an invocation.
func (j *Job) invocation(ctx context.Context) *slog.Logger {
	attributes := []any{"operation", j.Name, "traceId", traceOf(ctx).root}
	if called, ok := lambdacontext.FromContext(ctx); ok {
		attributes = append(attributes, "requestId", called.AwsRequestID)
	}
	if !j.begun.Swap(true) {
		attributes = append(attributes, "coldStart", true)
	}
	return j.Log.With(attributes...)
}

// run does the work and logs what it took. A panic is an error.
func (j *Job) run(ctx context.Context, log *slog.Logger, work func(context.Context) error) (err error) {
	start := time.Now()
	counting, consumed := j.CountUnits(ctx)
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
			log = log.With("stack", string(debug.Stack()))
		}
		read, write := consumed()
		log.Info(WorkLogged, "durationMs", float64(time.Since(start).Microseconds())/1000, "readUnits", read, "writeUnits", write)
		if err != nil {
			reporting.Count(ctx, log, reporting.EventFailed, 1, "error", err.Error())
		}
	}()
	return work(counting)
}
