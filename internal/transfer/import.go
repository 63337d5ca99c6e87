// Package transfer imports usage record groups, entitlements and billable metrics from JSON lines,
// exports them as JSON lines and groups as CSV, and loads the sample data.
package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/table"
)

// ImportOptions are the options of an import. The functions may be nil. They are never called
// concurrently.
type ImportOptions struct {
	Kind       Kind                         // what the lines hold; empty is Groups
	RewriteOrg bool                         // import lines of other organizations as the organization's own
	Patience   time.Duration                // how long a write is retried while the table is unavailable
	Refused    func(line int, reason error) // after each line that is refused
	Progress   func(Counts)                 // after each line
}

// Counts are the results of the lines of an import; empty lines are not counted.
type Counts struct{ Imported, Skipped, Refused int }

// Lines returns the number of lines read.
func (c Counts) Lines() int { return c.Imported + c.Skipped + c.Refused }

func (c Counts) String() string {
	return fmt.Sprintf("imported %d, skipped %d, refused %d", c.Imported, c.Skipped, c.Refused)
}

// Bounds of an import. Memory holds a chunk, the lines under way and one more line. Each is held as
// text (bounded here) and as a group, which can be twenty times as large if it is made of empty
// objects.
const (
	importWorkers  = 16      // concurrent puts
	maxLine        = 1 << 20 // bytes of a line with its end; a stored group has at most metering.MaxStored
	chunkLines     = 256     // lines for which the serial counter is changed at once,
	chunkBytes     = 1 << 20 // and their bytes
	maxUnderWay    = maxLine // bytes of the lines whose put is waiting or running
	finishUnderWay = 3 * time.Second
)

// Import stores what the lines hold and does not exist yet, unchanged. It returns when each line
// has been stored, skipped because its id exists, or refused. Of two lines with one id the first is
// stored; so it is of two entitlements with the same marketplace identifiers, and of two ACTIVE
// metrics with one name, whose second line is refused.
//
// Groups:
//
//	PutItem     each line     1 round trip, importWorkers concurrently; 5 write units under 1 KB
//	UpdateItem  each chunk with a serialID above all before it, before its groups are put: no new
//	            group gets the number of an imported one, even if the import ends early
//
// Entitlements and metrics, as table.ImportEntitlement and table.ImportMetric, one line after the
// other.
//
// It fails if from or the table fails, or when ctx is done. Then it finishes the lines under way,
// so that the counts are right, and starts no others. It does not wait for a blocked Read. After
// any failure the same import can be run again.
func Import(ctx context.Context, tbl *table.Table, org metering.OrgID, from io.Reader, o ImportOptions) (Counts, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	putCtx, cancel := outlive(ctx, finishUnderWay)
	defer cancel()
	im := &lineImport{table: tbl, org: org, options: o, room: semaphore.NewWeighted(maxUnderWay), seed: maphash.MakeSeed()}

	var workers sync.WaitGroup
	for i := range im.queues {
		im.queues[i] = make(chan importLine, 64)
		workers.Go(func() {
			for line := range im.queues[i] {
				if ctx.Err() == nil {
					if err := im.put(putCtx, line); err != nil {
						fail(err)
					}
				}
				im.room.Release(line.bytes)
			}
		})
	}
	reading := im.read(ctx, from)
	for _, queue := range im.queues {
		close(queue)
	}
	workers.Wait()

	err := cmp.Or(context.Cause(ctx), reading)
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err != nil {
		err = stack.FollowedBy(err, "; run it again to continue: what exists is skipped")
	}
	return im.counts, err
}

// outlive returns a context that is done by after ctx is.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return later, cancel
}

// lineImport is one import under way. One goroutine reads and decodes lines and sends them to the
// queues. Each queue has a worker that puts. Lines of which the first counts are in the same queue,
// in order.
type lineImport struct {
	table   *table.Table
	org     metering.OrgID
	options ImportOptions

	queues [importWorkers]chan importLine
	room   *semaphore.Weighted
	seed   maphash.Seed
	raised int32 // value that the serial counter was raised to
	limit  int32 // value that the serial counter was limited to; 0 is no limit

	reached atomic.Bool // a write has succeeded

	mu     sync.Mutex
	counts Counts
}

type importLine struct {
	number int
	bytes  int64
	importable
}

func (im *lineImport) read(ctx context.Context, from io.Reader) error {
	lines, err := NewLineReader(ctx, from)
	if err != nil {
		return err
	}
	chunk, size := make([]importLine, 0, chunkLines), int64(0)
	for {
		number, text, err := lines.Next()
		switch {
		case errors.Is(err, errLineTooLong):
			im.refuse(number, err)
		case errors.Is(err, io.EOF):
			return im.handOn(ctx, chunk)
		case err != nil:
			return cmp.Or(im.handOn(ctx, chunk), fmt.Errorf("reading line %d: %w", number, err))
		case len(text) > 0:
			object, err := im.decode(text)
			if err != nil {
				im.refuse(number, err)
				continue
			}
			chunk = append(chunk, importLine{number, int64(len(text)), object})
			size += int64(len(text))
		}
		if len(chunk) == chunkLines || size >= chunkBytes {
			if err := im.handOn(ctx, chunk); err != nil {
				return err
			}
			chunk, size = chunk[:0], 0
		}
	}
}

// handOn raises or limits the serial counter as the chunk requires, and sends its lines to the
// workers.
func (im *lineImport) handOn(ctx context.Context, chunk []importLine) error {
	raise, limit := im.raised, im.limit
	for _, line := range chunk {
		if n := line.serial; n <= metering.MaxRaisedSerial {
			raise = max(raise, n)
		} else if limit == 0 || n < limit {
			limit = n
		}
	}
	if raise > im.raised {
		if err := im.patiently(ctx, func() error { return im.table.RaiseSerial(ctx, im.org, raise) }); err != nil {
			return err
		}
		im.raised = raise
	}
	if limit != im.limit {
		if err := im.patiently(ctx, func() error { return im.table.LimitSerial(ctx, im.org, limit) }); err != nil {
			return err
		}
		im.limit = limit
	}
	for _, line := range chunk {
		if err := im.room.Acquire(ctx, line.bytes); err != nil {
			return err
		}
		im.queues[maphash.String(im.seed, line.queue)%importWorkers] <- line
	}
	return nil
}

// put stores what a line holds and counts the line. It returns only errors that the line did not
// cause.
func (im *lineImport) put(ctx context.Context, line importLine) error {
	var stored bool
	operation := table.NewOperation()
	err := im.patiently(ctx, func() (err error) {
		stored, err = line.put(ctx, operation)
		return err
	})
	switch {
	case err == nil && stored:
		im.count(func(c *Counts) { c.Imported++ })
	case err == nil:
		im.count(func(c *Counts) { c.Skipped++ })
	case metering.CodeOf(err) == metering.Invalid, metering.CodeOf(err) == metering.Conflict:
		im.refuse(line.number, err)
	default:
		return fmt.Errorf("line %d: %w", line.number, err)
	}
	return nil
}

// patiently repeats a write while the table is unavailable. AWS throttles an import of any size
// sooner or later, for longer than the client's own retries last: an index accepts about 1,000
// groups of an organization a second. If nothing was written yet and DynamoDB can't be reached, the
// reason is likely to stay: patiently returns at once.
func (im *lineImport) patiently(ctx context.Context, write func() error) error {
	for start := time.Now(); ; {
		err := write()
		if err == nil {
			im.reached.Store(true)
		}
		if _, ok := errors.AsType[*stack.AccessError](err); ok && !im.reached.Load() {
			return err
		}
		if metering.CodeOf(err) != metering.Unavailable || time.Since(start) >= im.options.Patience {
			return err
		}
		select {
		case <-time.After(time.Second/2 + rand.N(time.Second/2)):
		case <-ctx.Done():
			return err
		}
	}
}

func (im *lineImport) refuse(line int, reason error) {
	im.count(func(c *Counts) {
		c.Refused++
		if im.options.Refused != nil {
			im.options.Refused(line, reason)
		}
	})
}

func (im *lineImport) count(add func(*Counts)) {
	im.mu.Lock()
	defer im.mu.Unlock()
	add(&im.counts)
	if im.options.Progress != nil {
		im.options.Progress(im.counts)
	}
}
