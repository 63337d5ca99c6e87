package operate

import (
	"context"
	"fmt"
	"strings"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
)

// queues are those of the stack. They are nil if the environment does not name them.
type queues struct{ plan, submit *awscall.Queue }

// queuesOf returns the queues that PLAN_QUEUE_URL and SUBMIT_QUEUE_URL name.
func queuesOf(r *Request) (q queues, known bool) {
	plan, submit := r.Getenv("PLAN_QUEUE_URL"), r.Getenv("SUBMIT_QUEUE_URL")
	if plan == "" || submit == "" {
		return q, false
	}
	region := r.Target.At
	if strings.Contains(region, "://") { // an endpoint
		region = localdb.Region
	}
	client := &awscall.Client{Credentials: r.Target.Credentials, HTTP: exchange.NewClient(nil, 0), Now: r.Now}
	return queues{&awscall.Queue{Client: client, URL: plan, Region: region}, &awscall.Queue{Client: client, URL: submit, Region: region}}, true
}

// hints is the queue of hints.
func (q queues) hints() reporting.Queue { return reporting.Queues{Plan: q.plan, Submit: q.submit} }

// deadLetters returns how many messages the dead-letter queues have.
func (q queues) deadLetters(ctx context.Context) (n int, err error) {
	for _, queue := range []*awscall.Queue{q.plan, q.submit} {
		letters, err := queue.DeadLetters(ctx)
		if err != nil {
			return 0, fmt.Errorf("the dead letters of %s: %w", queue.URL, err)
		}
		n += letters
	}
	return n, nil
}
