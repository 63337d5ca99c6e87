package operate

import (
	"context"
	"fmt"
	"io"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Gated is whether usage is reported, after a Pause or a Resume.
type Gated struct {
	complete
	Stopped string `json:"stopped,omitempty"` // why not; empty if it is
	By      string `json:"by"`                // the operator
}

// Pause makes all workers open, send and apply nothing. Calls under way end, and their responses
// are stored.
func Pause(ctx context.Context, r *Request) (Result, error) {
	if err := r.Target.Pause(ctx, r.By, r.Now()); err != nil {
		return nil, err
	}
	return gated(ctx, r)
}

// Resume ends a pause. With Since, the time that the table was restored to, it first settles each
// hour that may have been sent after that time and is not stored so: its records are UNKNOWN.
func Resume(ctx context.Context, r *Request) (Result, error) {
	if !r.Since.IsZero() {
		return resumeRestored(ctx, r)
	}
	if err := r.Target.Resume(ctx, r.By, r.Now()); err != nil {
		if metering.CodeOf(err) == metering.Conflict {
			err = fmt.Errorf("%w: `marketmeter report resume --since T`, with the time that the table was restored to, resumes without sending it again", err)
		}
		return nil, err
	}
	return gated(ctx, r)
}

func gated(ctx context.Context, r *Request) (Result, error) {
	stopped, err := r.Target.Gate(ctx)
	if err != nil {
		return nil, err
	}
	return &Gated{Stopped: stopped, By: r.By}, nil
}

// WriteText writes it for people.
func (g *Gated) WriteText(w io.Writer) error {
	said := "Usage is reported."
	if g.Stopped != "" {
		said = "Nothing is reported: " + g.Stopped
	}
	_, err := fmt.Fprintln(w, said)
	return err
}
