package table

import (
	"context"
	"log/slog"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// notice gives a notice to the noticer of the context. Without one, it is logged.
func notice(ctx context.Context, what reports.Notice, n int, attributes ...any) {
	if noticer := reports.NoticerOf(ctx); noticer != nil {
		noticer(ctx, what, n, attributes...)
		return
	}
	message := map[reports.Notice]string{
		reports.StaleWork:   "work whose item does not wait was removed",
		reports.UnknownWork: "work that this version does not know is left alone",
		reports.TooLarge:    "a group is too large to be written",
	}[what]
	slog.WarnContext(ctx, message, append([]any{"entries", n}, attributes...)...)
}
