package lambdahost

import (
	"context"
	"log/slog"

	"github.com/marketmeter/marketmeter/internal/httpapi"
)

// metricsHandler also makes the log line of each request CloudWatch metrics, per operation and for
// all operations together. A member _aws says which members of the line are metrics (the embedded
// metric format). This needs no call, and nothing is sent twice.
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

// WithGroup omits the metrics: CloudWatch looks for them in the root, and members of a group are
// not there.
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
