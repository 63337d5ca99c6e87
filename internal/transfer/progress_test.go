package transfer

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestProgress_IsALineNowAndThen(t *testing.T) {
	t.Parallel()
	const first, bad, second = "imported 500, skipped 0, refused 0, 100 lines a second", "line 700: bad\n", "imported 999, skipped 0, refused 1, 100 lines a second"
	for _, test := range []struct {
		inPlace bool
		want    string
	}{
		{false, first + "\n" + bad + second + "\n"},
		{true, "\r\x1b[K" + first + "\r\x1b[K" + bad + "\r\x1b[K" + second + "\r\x1b[K"},
	} {
		var out strings.Builder
		now := time.Unix(0, 0)
		p := NewProgress(&out, os.Getenv, func() time.Time { return now })
		p.inPlace = test.inPlace
		for n := range 1200 { // a line every 10 ms
			now = now.Add(10 * time.Millisecond)
			counts := Counts{Imported: n + 1}
			if n >= 700 {
				counts = Counts{Imported: n, Refused: 1}
			}
			if n == 700 {
				p.Refused(n, errors.New("bad"))
			}
			p.Counts(counts)
		}
		p.Clear()
		if got := out.String(); got != test.want {
			t.Errorf("in place %v:\n%q\nwant\n%q", test.inPlace, got, test.want)
		}
	}
}

func TestProgress_HasNoControlSequencesIfRefused(t *testing.T) {
	t.Parallel()
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	for _, test := range []struct {
		environment map[string]string
		want        bool
	}{
		{map[string]string{"TERM": "xterm"}, true},
		{map[string]string{"TERM": "xterm", "NO_COLOR": ""}, true}, // no-color.org: unless it is empty
		{map[string]string{"TERM": "dumb"}, false},
		{map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false},
		{map[string]string{}, false},
	} {
		p := NewProgress(device, func(name string) string { return test.environment[name] }, time.Now)
		if p.inPlace != test.want {
			t.Errorf("%v: in place %v; want %v", test.environment, p.inPlace, test.want)
		}
	}
}
