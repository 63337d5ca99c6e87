package lambdahost

import (
	"context"
	"log/slog"

	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// metricsHandler also makes the log lines of requests and of work CloudWatch metrics, per operation
// and for all operations together, and those of events metrics without a dimension. A member _aws
// says which members of the line are metrics (the embedded metric format). This needs no call, and
// nothing is sent twice.
type metricsHandler struct {
	slog.Handler
	namespace string
}

func (h metricsHandler) Handle(ctx context.Context, r slog.Record) error {
	var of directive
	switch r.Message {
	case httpapi.RequestLogged:
		of = directive{h.namespace, [][]string{{"operation"}, {}}, append([]metric{{"internalErrors", "Count"}}, cost...)}
	case WorkLogged:
		of = directive{h.namespace, [][]string{{"operation"}, {}}, cost}
	case reporting.EventLogged:
		of = directive{h.namespace, [][]string{{}}, nil}
		r.Attrs(func(a slog.Attr) bool {
			if unit := reporting.MetricUnit(a.Key); unit != "" {
				of.Metrics = append(of.Metrics, metric{a.Key, unit})
			}
			return true
		})
	}
	if len(of.Metrics) > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Any("_aws", metadata{r.Time.UnixMilli(), []directive{of}}))
	}
	return h.Handler.Handle(ctx, r)
}

func (h metricsHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return metricsHandler{h.Handler.WithAttrs(attrs), h.namespace}
}

// WithGroup omits the metrics: CloudWatch looks for them in the root, and members of a group are
// not there.
func (h metricsHandler) WithGroup(name string) slog.Handler { return h.Handler.WithGroup(name) }

// cost is what requests and work have in common.
var cost = []metric{{"readUnits", "Count"}, {"writeUnits", "Count"}, {"durationMs", "Milliseconds"}}

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
