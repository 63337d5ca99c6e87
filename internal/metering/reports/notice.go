package reports

import "context"

// Notice is what the table meets beside what it is asked for, and does not return.
type Notice int

// The notices.
const (
	// StaleWork: entries of the index of work were removed, since their items do not wait.
	StaleWork Notice = iota
	// UnknownWork: entries of that index, or groups, have a form or a status that this version does
	// not know. They are left alone.
	UnknownWork
	// TooLarge: a group is too large for what was to be written to it. It is left as it is.
	TooLarge
)

// Noticer is called with each notice, how many entries or groups it is of, and attributes of a log
// line that name the first.
type Noticer func(ctx context.Context, notice Notice, n int, attributes ...any)

type noticerKey struct{}

// WithNoticer returns a context under which each notice is for the noticer.
func WithNoticer(ctx context.Context, noticer Noticer) context.Context {
	return context.WithValue(ctx, noticerKey{}, noticer)
}

// NoticerOf returns the noticer of the context; nil if it has none.
func NoticerOf(ctx context.Context) Noticer {
	noticer, _ := ctx.Value(noticerKey{}).(Noticer)
	return noticer
}
