package main

import (
	"io"
	"sync"
)

// standardOutput is the standard output of a command. It remembers the first failure of a Write, so
// that a command whose output is lost fails.
type standardOutput struct {
	to io.Writer

	mu     sync.Mutex
	failed error
}

func (o *standardOutput) Write(b []byte) (int, error) {
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

// err returns the first failure of a Write.
func (o *standardOutput) err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}
