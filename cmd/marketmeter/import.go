package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

const importHelp = `
usage: marketmeter import --org ORG [--rewrite-org] FILE

Loads usage record groups into organization ORG: one JSON object a line, as the list operation returns
it or "marketmeter export" writes it, in UTF-8, plain or compressed with gzip. FILE may be - for standard
input. Ids, times and statuses stay as
they are. A group whose id is there is skipped and never overwritten, so an import that was broken off
can be run again. A bad line is refused, with its number and the reason on standard error, and the rest
goes on.

A group may have at most 392 KB as stored. A line must have id, buyerID, entitlementID, partner, status and creationTime. It may have productID,
which is stored and never returned, and all other members of a group; its organizationID must be ORG.

The last line of output counts what was imported, skipped and refused. The exit status is 0 where
nothing was refused, 1 where something was or the import failed, 2 for a command line that can't be meant.

`

func importGroups(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("import", flag.ContinueOnError)
	org := flags.String("org", "", "the `organization` to import into; required")
	rewriteOrg := flags.Bool("rewrite-org", false, "import the groups of other organizations too, as the organization's own")
	if err := p.parse(flags, importHelp, args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return usageError(fmt.Sprintf("it takes one FILE, or -, after the flags; there are %d", flags.NArg()))
	}
	if err := checkOrg(*org); err != nil {
		return err
	}
	from := p.stdin
	if name := flags.Arg(0); name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	}
	tbl, err := openTable(ctx, p)
	if err != nil {
		return err
	}
	show := newProgress(p.stderr, p.getenv, time.Now)
	counts, err := importLines(ctx, tbl.Table, *org, from, importOptions{
		rewriteOrg: *rewriteOrg, patience: time.Minute, refused: show.refused, progress: show.counts,
	})
	show.clear()
	if _, printing := fmt.Fprintln(p.stdout, counts); printing != nil && err == nil {
		err = fmt.Errorf("%v, which could not be written to standard output: %w", counts, printing)
	}
	if err == nil && counts.refused > 0 {
		return exitStatus(1)
	}
	return err
}

// checkOrg checks the --org of a command that stores something for an organization.
func checkOrg(org string) error { return checkOrgBy(metering.CheckOrganizationID, org) }

// checkStoredOrg checks the --org of a command that reads or ends what is stored, which may be of an
// organization whose id is not allowed any more.
func checkStoredOrg(org string) error { return checkOrgBy(metering.CheckStoredOrganizationID, org) }

func checkOrgBy(check func(string) error, org string) error {
	if org == "" {
		return usageError("--org is missing: it names the organization")
	}
	if err := check(org); err != nil {
		return usageError(fmt.Sprintf("--org is %s: %v", metering.Quote(org), err))
	}
	return nil
}

// importOptions are what an import may be told. The functions may be nil; neither is called while
// either runs.
type importOptions struct {
	rewriteOrg bool                         // take groups of other organizations, as the organization's own
	patience   time.Duration                // how long a write is tried again while the table is unavailable
	refused    func(line int, reason error) // after each line that is refused
	progress   func(importCounts)           // after each line
}

// importCounts says what became of the lines of an import; empty ones don't count.
type importCounts struct{ imported, skipped, refused int }

func (c importCounts) lines() int { return c.imported + c.skipped + c.refused }

func (c importCounts) String() string {
	return fmt.Sprintf("imported %d, skipped %d, refused %d", c.imported, c.skipped, c.refused)
}

// Bounds of an import. What is in memory is a chunk, the lines under way and one more line, each as text
// (bounded here) and as a group, which can be twenty times that where it is made of empty objects.
const (
	importWorkers  = 16      // puts at the same time
	maxLine        = 1 << 20 // bytes of a line with its end; a group has at most metering.MaxStored as stored
	chunkLines     = 256     // lines for which the serial counter is changed at once,
	chunkBytes     = 1 << 20 // and their bytes
	maxUnderWay    = maxLine // bytes of the lines that wait for their put or are in it
	finishUnderWay = 3 * time.Second
)

// importLines stores the groups of the lines that are not there yet, as they are, and returns when
// each line has been stored, skipped because its id is there, or refused. Of two lines with one id
// the first is stored.
//
//	PutItem     each line     1 round trip, importWorkers at the same time; 5 write units under 1 KB
//	UpdateItem  each chunk whose serialIDs are over all before it, and before its groups are put: no
//	            new group gets the number of an imported one, wherever an import ends
//
// It fails where from or the table does, or when ctx is done: then what is under way is
// finished, so that the counts are right, and nothing more is begun. A Read that blocks then is left
// behind. After any failure the same import can be run again.
func importLines(ctx context.Context, tbl *table.Table, org string, from io.Reader, o importOptions) (importCounts, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	putCtx, cancel := outlive(ctx, finishUnderWay)
	defer cancel()
	im := &groupImport{table: tbl, org: org, options: o, room: semaphore.NewWeighted(maxUnderWay), seed: maphash.MakeSeed()}

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
		err = followedBy(err, "; run it again to go on: what is there is skipped")
	}
	return im.counts, err
}

// outlive returns a context that is done a while after ctx is.
func outlive(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return later, cancel
}

// groupImport is one import under way. One goroutine reads, decodes and hands on; a worker for each
// queue puts. Lines of one id are in one queue, in order.
type groupImport struct {
	table   *table.Table
	org     string
	options importOptions

	queues [importWorkers]chan importLine
	room   *semaphore.Weighted
	seed   maphash.Seed
	raised int32 // what the serial counter was raised to
	limit  int32 // what it was limited to; 0 is not at all

	reached atomic.Bool // a write has succeeded

	mu     sync.Mutex
	counts importCounts
}

type importLine struct {
	number int
	bytes  int64
	group  metering.Group
}

func (im *groupImport) read(ctx context.Context, from io.Reader) error {
	text, err := plainText(interruptible(ctx, from))
	if err != nil {
		return err
	}
	input := bufio.NewReaderSize(text, maxLine)
	chunk, size := make([]importLine, 0, chunkLines), int64(0)
	for number := 1; ; number++ {
		text, err := readLine(input)
		if number == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		switch {
		case errors.Is(err, errLineTooLong):
			im.refuse(number, err)
		case errors.Is(err, io.EOF):
			return im.handOn(ctx, chunk)
		case err != nil:
			return cmp.Or(im.handOn(ctx, chunk), fmt.Errorf("reading line %d: %w", number, err))
		case len(text) > 0:
			group, err := im.decode(text)
			if err != nil {
				im.refuse(number, err)
				continue
			}
			chunk = append(chunk, importLine{number, int64(len(text)), group})
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

// interruptible reads from r until ctx is done, whether or not a Read of r returns by then.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err) // nil is io.EOF
	}()
	context.AfterFunc(ctx, func() { out.CloseWithError(ctx.Err()) })
	return out
}

var errLineTooLong = fmt.Errorf("it is too long: a line has less than %d bytes", maxLine)

// readLine reads the next line, without its end and without blanks around it; it is valid until the
// next one is read. After errLineTooLong the reader is at the line that follows.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = errLineTooLong
		}
		return nil, err
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		err = nil
	}
	return bytes.Trim(line, " \t\r\n"), err
}

func (im *groupImport) decode(text []byte) (metering.Group, error) {
	group, err := wire.DecodeGroup(text)
	if err != nil {
		return metering.Group{}, err
	}
	if given := group.OrganizationID; given != "" && given != im.org && !im.options.rewriteOrg {
		return metering.Group{}, metering.Errorf(metering.Invalid, "organizationID is %s: it must be %s, unless --rewrite-org makes it that",
			metering.Quote(given), metering.Quote(im.org))
	}
	group.OrganizationID = im.org
	return group, nil
}

// handOn raises or limits the serial counter as the chunk needs it and gives its lines to the workers.
func (im *groupImport) handOn(ctx context.Context, chunk []importLine) error {
	raise, limit := im.raised, im.limit
	for _, line := range chunk {
		if n := line.group.SerialID; n <= table.MaxRaisedSerial {
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
		im.queues[maphash.String(im.seed, line.group.ID)%importWorkers] <- line
	}
	return nil
}

// put stores the group of a line and counts the line. What it returns is no fault of the line's.
func (im *groupImport) put(ctx context.Context, line importLine) error {
	var stored bool
	operation := table.NewOperation()
	err := im.patiently(ctx, func() (err error) {
		stored, err = im.table.PutAs(ctx, operation, &line.group)
		return err
	})
	switch {
	case err == nil && stored:
		im.count(func(c *importCounts) { c.imported++ })
	case err == nil:
		im.count(func(c *importCounts) { c.skipped++ })
	case metering.CodeOf(err) == metering.Invalid:
		im.refuse(line.number, err)
	default:
		return fmt.Errorf("line %d: %w", line.number, err)
	}
	return nil
}

// patiently writes, again and again while the table is unavailable. An import of any size is throttled
// in AWS sooner or later, for longer than the client's own retries last: an index takes about 1,000
// groups of an organization a second. If nothing was written yet and DynamoDB can't be reached, the reason is
// likely to stay: it returns at once.
func (im *groupImport) patiently(ctx context.Context, write func() error) error {
	for start := time.Now(); ; {
		err := write()
		if err == nil {
			im.reached.Store(true)
		}
		if _, ok := errors.AsType[*accessError](err); ok && !im.reached.Load() {
			return err
		}
		if metering.CodeOf(err) != metering.Unavailable || time.Since(start) >= im.options.patience {
			return err
		}
		select {
		case <-time.After(time.Second/2 + rand.N(time.Second/2)):
		case <-ctx.Done():
			return err
		}
	}
}

func (im *groupImport) refuse(line int, reason error) {
	im.count(func(c *importCounts) {
		c.refused++
		if im.options.refused != nil {
			im.options.refused(line, reason)
		}
	})
}

func (im *groupImport) count(add func(*importCounts)) {
	im.mu.Lock()
	defer im.mu.Unlock()
	add(&im.counts)
	if im.options.progress != nil {
		im.options.progress(im.counts)
	}
}

// progress tells a person how an import goes: on a terminal in a line that is rewritten in place, unless
// the environment refuses control sequences (TERM=dumb or none, NO_COLOR); otherwise in a line now and then.
type progress struct {
	to          io.Writer
	now         func() time.Time
	inPlace     bool
	every       time.Duration
	start, last time.Time
}

func newProgress(to io.Writer, getenv func(string) string, now func() time.Time) *progress {
	p := &progress{to: to, now: now, every: 5 * time.Second, start: now(), last: now()}
	terminal := getenv("TERM")
	if file, ok := to.(*os.File); ok && terminal != "" && terminal != "dumb" && getenv("NO_COLOR") == "" {
		info, err := file.Stat()
		p.inPlace = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if p.inPlace {
		p.every = 250 * time.Millisecond
	}
	return p
}

func (p *progress) counts(c importCounts) {
	now := p.now()
	if now.Sub(p.last) < p.every {
		return
	}
	p.last = now
	p.clear()
	fmt.Fprintf(p.to, "%v, %.0f lines a second", c, float64(c.lines())/now.Sub(p.start).Seconds())
	if !p.inPlace {
		fmt.Fprintln(p.to)
	}
}

func (p *progress) refused(line int, reason error) {
	p.clear()
	fmt.Fprintf(p.to, "line %d: %v\n", line, reason)
}

// clear takes the line that is rewritten off the terminal.
func (p *progress) clear() {
	if p.inPlace {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}
