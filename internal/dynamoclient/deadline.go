package dynamoclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/smithy-go/middleware"
)

// attemptTransport ends each attempt whose response is not complete within the limit. The time runs
// until the body is closed.
type attemptTransport struct {
	limit time.Duration
	next  http.RoundTripper
}

func (t attemptTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	late := fmt.Errorf("no whole response from DynamoDB within %s", t.limit)
	ctx, cancel := context.WithTimeoutCause(request.Context(), t.limit, late)
	response, err := t.next.RoundTrip(request.WithContext(ctx))
	if err != nil {
		defer cancel()
		return nil, lateOr(ctx, late, err)
	}
	response.Body = &attemptBody{response.Body, ctx, cancel, late}
	return response, nil
}

// lateOr returns late if that is why the attempt has failed. It hides the context's own error: an
// attempt that was ended is not a call that ran out of time.
func lateOr(ctx context.Context, late, err error) error {
	if errors.Is(context.Cause(ctx), late) {
		return late
	}
	return err
}

type attemptBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelFunc
	late   error
}

func (b *attemptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = lateOr(b.ctx, b.late, err)
	}
	return n, err
}

func (b *attemptBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// bounded ends a call that does not finish within the limit, with all its attempts. The error is
// context.DeadlineExceeded with the last attempt's error.
func bounded(limit time.Duration) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("marketmeter:bounded", func(
			ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler,
		) (middleware.InitializeOutput, middleware.Metadata, error) {
			within, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			out, metadata, err := next.HandleInitialize(within, in)
			if err != nil && within.Err() != nil && ctx.Err() == nil {
				err = fmt.Errorf("DynamoDB did not respond within %s: %w", limit, err)
			}
			return out, metadata, err
		}), middleware.Before)
	}
}
