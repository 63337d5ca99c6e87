package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

// The scripts of cmd/marketmeter test the rest: help, errors, and output to a full disk.

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("write: %w", syscall.EPIPE) }

func TestRun_BrokenPipeIsTheStatusOfSIGPIPE(t *testing.T) {
	t.Parallel()
	var stderr strings.Builder
	p := Program{Stdout: brokenWriter{}, Stderr: &stderr, Name: "p", Help: fstest.MapFS{}}
	if status := p.Run(t.Context(), nil, []string{"help"}); status != 141 || stderr.Len() > 0 {
		t.Errorf("exit status %d\n%s\nwant 141, and no message", status, &stderr)
	}
	failing := []Command{{"x", "", func(_ context.Context, p Program, _ []string) error {
		fmt.Fprint(p.Stdout, "result")
		return errors.New("it failed")
	}}}
	p.Explain = func(err error) error { return err }
	if status := p.Run(t.Context(), failing, []string{"x"}); status != 1 || stderr.String() != "p x: it failed\n" {
		t.Errorf("exit status %d\n%s\nwant the command's own", status, &stderr)
	}
}

func TestParseSpan_WholeNumbersOfOneUnit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "5m": 5 * time.Minute, "1s": time.Second, "0h": 0, "3650d": longestSpan,
		"87600h": longestSpan, "007d": 7 * 24 * time.Hour,
	} {
		if got, err := ParseSpan(text); err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "d", "90", "1.5d", "+1d", "-1d", " 1d", "1d ", "1w", "1D", "1d12h", "1_0d", "0x1d", "3651d", "87601h", "4294967295d",
		"99999999999999999999d", "١d", "never",
	} {
		if got, err := ParseSpan(text); err == nil {
			t.Errorf("%q is %s; want an error", text, got)
		}
	}
}

func TestCheckArguments_ComparesWithTheDescription(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		arguments         []string
		description, want string
	}{
		{nil, "", ""},
		{[]string{"x"}, "", "it takes flags alone; arguments given: 1"},
		{[]string{"x", "yes"}, "ID yes|no", ""},
		{[]string{"x", "no"}, "ID yes|no", ""},
		{[]string{"x"}, "ID yes|no", "it takes ID yes|no; arguments given: 1"},
		{[]string{"x", "maybe"}, "ID yes|no", `it takes ID yes|no: "maybe" must be yes or no`},
		{[]string{"x", ""}, "ID yes|no", `it takes ID yes|no: "" must be yes or no`},
	} {
		got := ""
		if err := CheckArguments(test.arguments, test.description); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%q for %q: %q; want %q", test.arguments, test.description, got, test.want)
		}
	}
}
