package reporting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Queues is the Queue of a deployed stack: a queue for each of Plan and Submit.
type Queues struct{ Plan, Submit Sender }

// Sender sends messages to one queue: awscall.Queue. Messages become visible after the delay; 0 is
// the queue's own.
type Sender interface {
	Send(ctx context.Context, bodies []string, delay time.Duration) error
}

// Enqueue sends each hint once. If one of the queues fails, the other gets its hints all the same.
func (q Queues) Enqueue(ctx context.Context, hints ...Hint) error {
	var plan, submit []string
	sent := map[string]bool{}
	for _, h := range hints {
		body := EncodeHint(h)
		switch {
		case sent[body]:
		case h.Lane == "":
			plan = append(plan, body)
		default:
			submit = append(submit, body)
		}
		sent[body] = true
	}
	var failed []error
	if len(plan) > 0 {
		failed = append(failed, q.Plan.Send(ctx, plan, 0))
	}
	if len(submit) > 0 {
		failed = append(failed, q.Submit.Send(ctx, submit, 0))
	}
	return errors.Join(failed...)
}

// hintJSON is the body of a message, for those that send it and those that read it.
type hintJSON struct {
	Organization string `json:"organization"`
	Entitlement  string `json:"entitlement,omitempty"`
	Hour         string `json:"hour,omitempty"`
	Lane         string `json:"lane,omitempty"`
}

const hintHour = "2006-01-02T15"

// EncodeHint returns the body of the message of a hint: JSON in ASCII, since SQS refuses messages
// with some characters that an identifier may have.
func EncodeHint(h Hint) string {
	body := hintJSON{Organization: string(h.Place.Organization), Lane: h.Lane}
	if h.Lane == "" {
		body.Entitlement, body.Hour = string(h.Place.Entitlement), h.Place.Hour.UTC().Format(hintHour)
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings can always be encoded
	}
	var b []byte
	for _, r := range string(text) {
		switch {
		case r < utf8.RuneSelf:
			b = append(b, byte(r))
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return string(b)
}

// DecodeHint reads the body of a message. It accepts what EncodeHint returns and nothing else.
func DecodeHint(body string) (h Hint, err error) {
	var read hintJSON
	if err := json.Unmarshal([]byte(body), &read); err != nil {
		return Hint{}, fmt.Errorf("it is no JSON of a hint: %w", err)
	}
	h.Lane = read.Lane
	if h.Place.Organization, err = metering.StoredOrgID(read.Organization); err != nil {
		return Hint{}, fmt.Errorf("organization: %w", err)
	}
	if h.Lane == "" {
		if h.Place.Entitlement, err = metering.StoredEntitlementID(read.Entitlement); err != nil {
			return Hint{}, fmt.Errorf("entitlement: %w", err)
		}
		if h.Place.Hour, err = time.Parse(hintHour, read.Hour); err != nil {
			return Hint{}, fmt.Errorf("hour: %w", err)
		}
	}
	if EncodeHint(h) != body {
		return Hint{}, errors.New("it has members or a form that no hint has")
	}
	return h, nil
}

// Work does what the hint is for: Submit for a lane, else Plan.
func (w *Worker) Work(ctx context.Context, h Hint) error {
	if h.Lane != "" {
		return w.SubmitHint(ctx, h)
	}
	return w.PlanHint(ctx, h)
}

// PlanHint is Plan for the place of a hint. It refuses a hint for Submit.
func (w *Worker) PlanHint(ctx context.Context, h Hint) error {
	if h.Lane != "" {
		return errors.New("the hint is for submit, and came to plan")
	}
	return w.Plan(ctx, h.Place)
}

// SubmitHint is Submit for the lane of a hint. It refuses a hint for Plan.
func (w *Worker) SubmitHint(ctx context.Context, h Hint) error {
	if h.Lane == "" {
		return errors.New("the hint is for plan, and came to submit")
	}
	return w.Submit(ctx, h.Lane)
}

// LogValue is the hint in a log line.
func (h Hint) LogValue() slog.Value {
	if h.Lane != "" {
		return slog.GroupValue(slog.String("organization", string(h.Place.Organization)), slog.String("lane", h.Lane))
	}
	return slog.GroupValue(at(h.Place))
}
