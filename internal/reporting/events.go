package reporting

import (
	"context"
	"log/slog"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// EventLogged is the message of the log lines of events. lambdahost makes their counts metrics.
const EventLogged = "reporting"

// Event is something that a worker counts. It is the name of the member of the log line that has
// the count, and of the metric. docs/operations.md says what to do about each that has an alarm.
type Event string

// The events. Those that are not said to be normal have an alarm each.
const (
	// EventScheduled: Schedule has looked for all work that is due. It is normal; its absence has
	// the alarm.
	EventScheduled Event = "scheduled"
	// EventAccepted: records were billed. It is normal.
	EventAccepted Event = "accepted"
	// EventDuplicate: records were accepted because a duplicate came after an attempt in doubt.
	EventDuplicate Event = "acceptedByDuplicate"
	// EventRejected: records were rejected, for another reason than EventExpired.
	EventRejected Event = "rejected"
	// EventConflict: another record stands for the hour of records.
	EventConflict Event = "conflicts"
	// EventUnknown: the window of records ended while an attempt was in doubt.
	EventUnknown Event = "unknownOutcomes"
	// EventExpired: the window of records or groups ended before they were billed (EXPIRED), also
	// because their hour could not be sealed, or no later hour may take them (NO_HOUR_LEFT).
	EventExpired Event = "expired"
	// EventUnitsCarried: records were sealed with more than their marketplace takes of an hour: one
	// unit or more of each waits for the next hour with usage. Rounding carries less, except at
	// Azure beyond 15 digits.
	EventUnitsCarried Event = "unitsCarried"
	// EventNoConnection: usage has waited for a connection, or for identifiers, for longer than
	// NoConnectionAfter, or failed for want of one.
	EventNoConnection Event = "noConnection"
	// EventSealStopped: an hour could not be sealed, and stays OPEN until its deadline.
	EventSealStopped Event = "sealStopped"
	// EventUnknownVersion: items, or entries of the index of work, have a state or version that
	// this program does not know, and were left alone.
	EventUnknownVersion Event = "unknownVersion"
	// EventUnclaimable: groups could not be claimed, or failed at their deadline, because they are
	// too large.
	EventUnclaimable Event = "unclaimable"
	// EventGateClosed: workers do nothing, because an operator has paused them or the table is a
	// restored one.
	EventGateClosed Event = "gateClosed"
	// EventConnectionRefused: the marketplace, or AWS, refused the credentials of a connection.
	EventConnectionRefused Event = "connectionRefused"
	// EventThrottled: a marketplace throttled a lane. It is normal.
	EventThrottled Event = "throttled"
	// EventFailed: the work of a hint ended with an error, and is repeated. Only dead letters have
	// an alarm.
	EventFailed Event = "failed"
	// EventUnreadableHint: a message of a queue is no hint. It becomes a dead letter.
	EventUnreadableHint Event = "unreadableHints"
	// EventStaleWork: entries of the index of work were removed, since their items do not wait. It
	// is normal.
	EventStaleWork Event = "staleWork"
	// EventReconciled: Reconcile has compared everything. It is normal; its absence has the alarm.
	EventReconciled Event = "reconciled"
	// EventDiffers: what the marketplace has processed is not what was accepted.
	EventDiffers Event = "reconciliationDiffers"
)

// The gauges that Schedule reports in the log line of EventScheduled.
const (
	gaugeOldest   = "oldestSeconds"   // since the hour of the oldest usage that is not settled closed; 0 if none has
	gaugeRetried  = "retriedSeconds"  // the same of what is sent again or is about to be sent first, which oldestSeconds leaves out
	gaugeDeadline = "deadlineSeconds" // until the earliest deadline of usage that is not settled, if any
	gaugePlaces   = "places"
	gaugeLanes    = "lanes"
)

// units are the metrics, with CloudWatch's names of their units.
var units = map[string]string{
	gaugeOldest: "Seconds", gaugeRetried: "Seconds", gaugeDeadline: "Seconds", gaugePlaces: "Count", gaugeLanes: "Count",
}

var levels = map[Event]slog.Level{
	EventScheduled: slog.LevelInfo, EventAccepted: slog.LevelInfo, EventThrottled: slog.LevelInfo, EventStaleWork: slog.LevelInfo,
	EventReconciled: slog.LevelInfo, EventDuplicate: slog.LevelWarn, EventRejected: slog.LevelWarn, EventUnitsCarried: slog.LevelWarn, EventNoConnection: slog.LevelWarn,
	EventGateClosed: slog.LevelWarn, EventConnectionRefused: slog.LevelWarn, EventConflict: slog.LevelError, EventUnknown: slog.LevelError,
	EventExpired: slog.LevelError, EventSealStopped: slog.LevelError, EventUnknownVersion: slog.LevelError, EventUnclaimable: slog.LevelError,
	EventFailed: slog.LevelError, EventUnreadableHint: slog.LevelError, EventDiffers: slog.LevelError,
}

// MetricUnit returns the unit of the metric that a member of a line with the message EventLogged
// is; empty if it is none.
func MetricUnit(member string) string {
	if _, counted := levels[Event(member)]; counted {
		return "Count"
	}
	return units[member]
}

// event counts what happened n times: it writes one log line. It does nothing if n is 0.
func (w *Worker) event(ctx context.Context, e Event, n int, attributes ...any) {
	Count(ctx, w.Log, e, n, attributes...)
}

// Count counts an event that happened n times outside of a Worker. It does nothing if n is 0.
func Count(ctx context.Context, log *slog.Logger, e Event, n int, attributes ...any) {
	if n == 0 {
		return
	}
	log.Log(ctx, levels[e], EventLogged, append([]any{"event", string(e), string(e), n}, attributes...)...)
}

// countCarried counts the records that an hour was sealed with and that carry units.
func (w *Worker) countCarried(ctx context.Context, h *reports.Hour) {
	for i := range h.Sealed.Records {
		if r := &h.Sealed.Records[i]; r.CarriesUnits() {
			w.event(ctx, EventUnitsCarried, 1, at(h.Place()), "dimension", r.Dimension, "report", h.ID(), "quantity", r.Quantity.String(), "carried", r.CarryOut.Decimal(6))
		}
	}
}

// events are the events that the notices of the table are.
var events = map[reports.Notice]Event{
	reports.StaleWork: EventStaleWork, reports.UnknownWork: EventUnknownVersion, reports.TooLarge: EventUnclaimable,
}

// noticing returns a context whose calls of the store have their notices counted.
func (w *Worker) noticing(ctx context.Context) context.Context {
	return reports.WithNoticer(ctx, func(ctx context.Context, notice reports.Notice, n int, attributes ...any) {
		w.event(ctx, events[notice], n, attributes...)
	})
}

// at is the attributes of a log line about a place.
func at(p reports.Place) slog.Attr {
	return slog.Group("", "organization", string(p.Organization), "entitlement", string(p.Entitlement), "hour", metering.FormatTime(p.Hour))
}

// scheduled counts that Schedule has run, with what it has seen.
func (w *Worker) scheduled(ctx context.Context, seen Overview) {
	now := w.Now()
	attributes := []any{gaugePlaces, seen.Places, gaugeLanes, seen.Lanes}
	add := func(gauge, name string, m Moment, d time.Duration) {
		attributes = append(attributes, gauge, int(max(0, d).Seconds()))
		if !m.IsZero() {
			attributes = append(attributes, slog.Group(name, at(m.Place)))
		}
	}
	since := func(m Moment) time.Duration {
		if m.IsZero() {
			return 0
		}
		return now.Sub(m.Time)
	}
	add(gaugeOldest, "oldest", seen.Closed, since(seen.Closed))
	add(gaugeRetried, "retried", seen.Retried, since(seen.Retried))
	if !seen.Deadline.IsZero() {
		add(gaugeDeadline, "earliest", seen.Deadline, seen.Deadline.Sub(now))
	}
	w.event(ctx, EventScheduled, 1, attributes...)
}

// NoConnectionAfter is how long after the end of an hour its usage may wait for a connection before
// an alarm: Google asks for usage within an hour.
func NoConnectionAfter(p metering.Partner) time.Duration {
	if p == "GCP" {
		return 30 * time.Minute
	}
	return 12 * time.Hour
}
