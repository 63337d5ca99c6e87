package lambdahost

import (
	"context"
	"log/slog"

	"github.com/marketmeter/marketmeter/internal/httpapi"
)

// metricsHandler makes the log line of each request metrics of CloudWatch too, by a member _aws
// that says which members of the line are some (the embedded metric format): of each operation, and
// of all together. No call is made for it, and nothing is sent twice.
type metricsHandler struct {
	slog.Handler
	namespace string
}

func (h metricsHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == httpapi.RequestLogged {
		r = r.Clone()
		r.AddAttrs(slog.Any("_aws", metadata{r.Time.UnixMilli(), []directive{{
			Namespace:  h.namespace,
			Dimensions: [][]string{{"operation"}, {}},
			Metrics: []metric{
				{"internalErrors", "Count"}, {"readUnits", "Count"}, {"writeUnits", "Count"}, {"durationMs", "Milliseconds"},
			},
		}}}))
	}
	return h.Handler.Handle(ctx, r)
}

func (h metricsHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return metricsHandler{h.Handler.WithAttrs(attrs), h.namespace}
}

// WithGroup leaves the metrics out: members of a group are none of the root, where CloudWatch
// looks.
func (h metricsHandler) WithGroup(name string) slog.Handler { return h.Handler.WithGroup(name) }

type metadata struct {
	Timestamp         int64 // milliseconds since 1970
	CloudWatchMetrics []directive
}

type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []metric
}

type metric struct{ Name, Unit string }
