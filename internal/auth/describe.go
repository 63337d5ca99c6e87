package auth

import (
	"fmt"
	"io"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// gatewayLag is how long API Gateway caches the authorizer's result for a key: ReauthorizeEvery in
// template.yaml.
const gatewayLag = 60 * time.Second

// Describe names a key and says what it allows.
func (r *Record) Describe() string {
	until := "it never expires"
	if !r.ExpiryTime.IsZero() {
		until = "it expires at " + metering.FormatTime(r.ExpiryTime)
	}
	labelled := ""
	if r.Label != "" {
		labelled = fmt.Sprintf(", labelled %q", r.Label)
	}
	return fmt.Sprintf("key %s of organization %s%s; its scopes are %s; %s",
		r.Hash.ID(), metering.Quote(r.Organization), labelled, r.Scopes, until)
}

// DescribeRotation says when the key, which was rotated, ends. It was to be valid for keep.
func (r *Record) DescribeRotation(keep time.Duration) string {
	sentences := fmt.Sprintf("The old key %s ends at %s.", r.Hash.ID(), metering.FormatTime(r.ExpiryTime))
	if keep < gatewayLag { // API Gateway may still cache the old end of the key
		sentences += fmt.Sprintf(" In AWS, API Gateway may accept it for up to %d seconds from now.", gatewayLag/time.Second)
	}
	return sentences
}

// DescribeRevocation says that the key was revoked: now if changed is true, or before.
func (r *Record) DescribeRevocation(changed bool) string {
	at := ""
	if !r.RevocationTime.IsZero() {
		at = " at " + metering.FormatTime(r.RevocationTime)
	}
	if !changed {
		return fmt.Sprintf("Key %s was revoked before,%s by %s: nothing has changed.", r.Hash.ID(), at, Printable(r.RevokedBy))
	}
	return fmt.Sprintf("Revoked key %s of organization %s,%s. In AWS, API Gateway may accept it for up to %d seconds more; the local server refuses it at once.",
		r.Hash.ID(), metering.Quote(r.Organization), at, gatewayLag/time.Second)
}

// describe says what has become of the key of that id.
func (e KeyEnd) describe(id string) string {
	if e.Revoked {
		return fmt.Sprintf("revoked key %s of organization %s", id, metering.Quote(e.Organization))
	}
	return fmt.Sprintf("key %s of organization %s ends at %s", id, metering.Quote(e.Organization), metering.FormatTime(e.At))
}

func (c ReplayCounts) String() string {
	return fmt.Sprintf("revoked %d, ended %d, unchanged %d, failed %d", c.Revoked, c.Ended, c.Unchanged, c.Failed)
}

// Redacting is an output without keys, such as one in a command line that an error quotes. Each
// Write must be a whole message.
type Redacting struct{ To io.Writer }

func (r Redacting) Write(text []byte) (int, error) {
	if _, err := io.WriteString(r.To, Redact(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}
