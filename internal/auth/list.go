package auth

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// WriteList writes the keys as a table for people: one line per key, with its state at the time
// now.
func WriteList(w io.Writer, records []Record, now time.Time) error {
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, "ID\tLABEL\tSCOPES\tCREATED\tCREATED BY\tEXPIRES\tLAST USED\tSTATE")
	for i := range records {
		r := &records[i]
		id := r.Hash.ID()
		if r.Hash == (Hash{}) {
			id = "-"
		}
		at := func(name string, t time.Time) string {
			if slices.Contains(r.Unreadable, name) || slices.Contains(r.Unreadable, WholeRecord) {
				return "?"
			}
			return toTheMinute(t)
		}
		fmt.Fprintln(columns, strings.Join([]string{
			id, Printable(r.Label), Printable(r.Scopes.String()), at("creationTime", r.CreationTime), Printable(r.CreatedBy),
			at("expiryTime", r.ExpiryTime), at("lastUsedTime", r.LastUsedTime), stateOf(r, now),
		}, "\t"))
	}
	return columns.Flush()
}

// stateOf returns a key's state and its details, as the list shows it.
func stateOf(r *Record, now time.Time) string {
	state := string(r.State(now))
	if !r.RevocationTime.IsZero() {
		state += " " + toTheMinute(r.RevocationTime) + " by " + Printable(r.RevokedBy)
	}
	if len(r.Unreadable) > 0 {
		if r.State(now) != Unreadable {
			state += ", unreadable"
		}
		state += ": " + strings.Join(r.Unreadable, ", ")
	}
	if r.ReplacedBy != "" {
		state += ", rotated to " + Printable(r.ReplacedBy)
	}
	if r.UnknownScopes != "" {
		state += ", unknown scopes: " + Printable(metering.Quote(r.UnknownScopes))
	}
	if len(r.UnknownAttributes) > 0 {
		state += ", unknown attributes: " + Printable(metering.Quote(strings.Join(r.UnknownAttributes, ",")))
	}
	return state
}

// toTheMinute returns a time as the list shows it.
func toTheMinute(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02T15:04Z")
}

// Printable returns a stored text without characters that move a terminal's cursor or change the
// direction of its line. An empty text becomes "-", so that the column is not empty.
func Printable(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
