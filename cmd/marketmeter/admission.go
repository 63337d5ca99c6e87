package main

import (
	"context"
	"time"
)

// admission bounds how many requests are worked on at once, each of which may hold megabytes, and how many
// wait for that. Who is let in waits little and is answered; the rest are told at once to come again. A
// server that takes all there is answers nobody in time under a load that does not end.
type admission struct {
	work     chan struct{} // a place for each request that is worked on
	queue    chan struct{} // and for each that waits
	patience time.Duration // that one waits at most
}

// serverAdmission is several times what DynamoDB Local does at once, and queues about a second of it.
func serverAdmission() *admission { return newAdmission(16, 64, 2*time.Second) }

func newAdmission(work, queue int, patience time.Duration) *admission {
	return &admission{make(chan struct{}, work), make(chan struct{}, queue), patience}
}

// enter reports whether a request is let in; it must leave then. Those that wait go first, in order.
func (a *admission) enter(ctx context.Context) bool {
	select {
	case a.work <- struct{}{}:
		return true
	default:
	}
	select {
	case a.queue <- struct{}{}:
		defer func() { <-a.queue }()
	default:
		return false
	}
	enough := time.NewTimer(a.patience)
	defer enough.Stop()
	select {
	case a.work <- struct{}{}:
		return true
	case <-enough.C:
	case <-ctx.Done():
	}
	return false
}

func (a *admission) leave() { <-a.work }
