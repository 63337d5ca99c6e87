package transfer

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
)

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write([]byte(text))
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// inUTF16 encodes the text as UTF-16, with the low byte first or last.
func inUTF16(text string, lowFirst bool) string {
	var out []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		high, low := byte(unit>>8), byte(unit)
		if lowFirst {
			out = append(out, low, high)
		} else {
			out = append(out, high, low)
		}
	}
	return string(out)
}

func inUTF32(text string, lowFirst bool) string {
	var out []byte
	for _, r := range text {
		if lowFirst {
			out = append(out, byte(r), byte(r>>8), byte(r>>16), 0)
		} else {
			out = append(out, 0, byte(r>>16), byte(r>>8), byte(r))
		}
	}
	return string(out)
}

func importText(t *testing.T, tbl *table.Table, org, text string) (Counts, error) {
	t.Helper()
	return Import(t.Context(), tbl, metering.OrgID(org), strings.NewReader(text), ImportOptions{})
}

func TestImport_ReadsGzip(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	lines := transfertest.Lines(transfertest.ManyGroups(50, ""))
	half := strings.Index(lines[len(lines)/2:], "\n") + len(lines)/2 + 1
	for i, input := range []string{
		gzipped(t, lines), gzipped(t, lines[:half]) + gzipped(t, lines[half:]), // two members
		gzipped(t, "\ufeff"+lines), "\ufeff" + lines, lines, lines[:len(lines)-1], // without the last newline
	} {
		if counts, err := importText(t, tbl, fmt.Sprint("o", i), input); err != nil || counts != (Counts{Imported: 50}) {
			t.Errorf("input %d: %v, %v", i, counts, err)
		}
	}
	for _, empty := range []string{"", gzipped(t, ""), "\ufeff", "\n"} {
		if counts, err := importText(t, tbl, "o", empty); err != nil || counts != (Counts{}) {
			t.Errorf("%q: %v, %v", empty, counts, err)
		}
	}
}

// The lines before the damage are imported and counted, and the failure is reported in one line.
func TestImport_StopsAtDamagedGzip(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var lines strings.Builder
	for n := range 600 {
		lines.WriteString(transfertest.Line(fmt.Sprint("g", n)))
	}
	whole := gzipped(t, lines.String())
	badSum := []byte(whole)
	badSum[len(badSum)-8] ^= 1
	for i, test := range []struct {
		input, want string
		imported    int // at least
	}{
		{whole[:len(whole)*3/4], "the gzip data is cut off: it ends too early", 100},
		{whole[:len(whole)-3], "the gzip data is cut off: it ends too early", 600},
		{string(badSum), "the gzip data can't be read: gzip: invalid checksum", 600},
		{whole + "that is no gzip", "the gzip data can't be read: gzip: invalid header", 600},
		{whole[:5], "the gzip data is cut off: it ends too early", 0},
		{"\x1f\x8b", "the gzip data is cut off: it ends too early", 0},
		{"\x1f\x8b\x09\x00\x00\x00\x00\x00\x00\x00", "the gzip data can't be read: gzip: invalid header", 0},
		{gzipped(t, whole), "the input is gzip within gzip: decompress it once", 0},
	} {
		org := fmt.Sprint("o", i)
		counts, err := importText(t, tbl, org, test.input)
		stored := len(transfertest.StoredGroups(t, tbl, org))
		if err == nil || !strings.Contains(err.Error(), test.want) || stored < test.imported || counts != (Counts{Imported: stored}) {
			t.Errorf("%d bytes: %v, %v, and %d are stored; want at least %d and %q", len(test.input), counts, err, stored, test.imported, test.want)
		}
	}
}

func TestImport_NamesOtherFormatsOnce(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var lines strings.Builder
	for n := range 20 {
		lines.WriteString(transfertest.Line(fmt.Sprint("g", n), "buyerID", "é日"))
	}
	text := lines.String()
	tar := "groups.jsonl" + strings.Repeat("\x00", 245) + "ustar\x0000" + strings.Repeat("\x00", 248) + text
	for name, test := range map[string]struct{ input, want string }{
		"UTF-16LE":             {"\xff\xfe" + inUTF16(text, true), "the input is UTF-16: "},
		"UTF-16BE":             {"\xfe\xff" + inUTF16(text, false), "the input is UTF-16: "},
		"UTF-16LE, no mark":    {inUTF16(text, true), "`iconv -f UTF-16LE -t UTF-8`"},
		"UTF-16BE, no mark":    {inUTF16(text, false), "`iconv -f UTF-16BE -t UTF-8`"},
		"UTF-16LE, empty line": {inUTF16("\r\n"+text, true), "the input is UTF-16: "},
		"UTF-16LE, short":      {inUTF16("{}", true), "the input is UTF-16: "},
		"UTF-32LE":             {"\xff\xfe\x00\x00" + inUTF32(text, true), "the input is UTF-32: "},
		"UTF-32BE, no mark":    {inUTF32(text, false), "`iconv -f UTF-32BE -t UTF-8`"},
		"UTF-32LE, no mark":    {inUTF32(text, true), "`iconv -f UTF-32LE -t UTF-8`"},
		"UTF-16 in gzip":       {gzipped(t, "\xff\xfe"+inUTF16(text, true)), "the input is UTF-16: "},
		"zstd":                 {"\x28\xb5\x2f\xfd" + text, "compressed with zstd"},
		"xz":                   {"\xfd7zXZ\x00" + text, "compressed with xz"},
		"bzip2":                {"BZh91AY&SY" + text, "compressed with bzip2"},
		"zip":                  {"PK\x03\x04" + text, "a zip archive"},
		"tar":                  {tar, "a tar archive"},
		"tar in gzip":          {gzipped(t, tar), "a tar archive"},
		"CSV":                  {"id,organizationID,buyerID\ng1,o1,b\n", "the input is CSV"},
		"a program":            {"\x7fELF\x02\x01\x01\x00" + strings.Repeat("x", 400), "the input is no text"},
	} {
		var refused []error
		counts, err := Import(t.Context(), tbl, "o1", strings.NewReader(test.input), ImportOptions{Refused: func(_ int, reason error) { refused = append(refused, reason) }})
		if err == nil || !strings.Contains(err.Error(), test.want) || counts != (Counts{}) || refused != nil {
			t.Errorf("%s: %v, %v, %v; want one error with %q", name, counts, err, refused, test.want)
		}
	}
}
