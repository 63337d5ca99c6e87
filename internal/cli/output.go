package cli

import (
	"io"
	"sync"
)

// Output is the standard output of a command. It remembers the first failure of a Write, so that a
// command whose output is lost fails.
type Output struct {
	to io.Writer

	mu     sync.Mutex
	failed error
}

func (o *Output) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.failed == nil {
			o.failed = err
		}
	}
	return n, err
}

// Unwrapped returns the writer itself, which may be a terminal, for another program.
func (o *Output) Unwrapped() io.Writer { return o.to }

// err returns the first failure of a Write.
func (o *Output) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}
