package transfer

import (
	"fmt"
	"io"
	"os"
	"time"
)

// Progress shows the progress of an import. On a terminal it rewrites one line in place, unless the
// environment refuses control sequences (TERM=dumb or none, NO_COLOR). Otherwise it prints a line
// now and then.
type Progress struct {
	to          io.Writer
	now         func() time.Time
	inPlace     bool
	every       time.Duration
	start, last time.Time
}

// NewProgress returns a Progress that writes to to and reads the time from now.
func NewProgress(to io.Writer, getenv func(string) string, now func() time.Time) *Progress {
	p := &Progress{to: to, now: now, every: 5 * time.Second, start: now(), last: now()}
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

// Counts shows the counts, unless counts were shown a moment ago.
func (p *Progress) Counts(c Counts) {
	now := p.now()
	if now.Sub(p.last) < p.every {
		return
	}
	p.last = now
	p.Clear()
	fmt.Fprintf(p.to, "%v, %.0f lines a second", c, float64(c.Lines())/now.Sub(p.start).Seconds())
	if !p.inPlace {
		fmt.Fprintln(p.to)
	}
}

// Refused prints a refused line's number and the reason.
func (p *Progress) Refused(line int, reason error) {
	p.Clear()
	fmt.Fprintf(p.to, "line %d: %v\n", line, reason)
}

// Clear removes the rewritten line from the terminal.
func (p *Progress) Clear() {
	if p.inPlace {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}
