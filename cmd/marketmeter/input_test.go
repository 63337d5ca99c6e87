package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

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

func TestImport_ReadsGzip(t *testing.T) {
	t.Parallel()
	lines := transfertest.Lines(transfertest.ManyGroups(50, "o1"))
	half := strings.Index(lines[len(lines)/2:], "\n") + len(lines)/2 + 1
	dir := t.TempDir()
	for name, input := range map[string]string{
		"gzip": gzipped(t, lines), "gzip of two members": gzipped(t, lines[:half]) + gzipped(t, lines[half:]),
		"gzip with a mark of UTF-8": gzipped(t, "\ufeff"+lines), "a mark of UTF-8": "\ufeff" + lines, "plain": lines, "without a last newline": lines[:len(lines)-1],
	} {
		_, table := tabletest.Client(t)
		if status, stdout, stderr := onTable(t, table, input, "import", "--org", "o1", "-"); status != 0 || stdout != "imported 50, skipped 0, refused 0\n" {
			t.Errorf("%s: %d, %s%s", name, status, stdout, stderr)
		}
		file := filepath.Join(dir, name) // the file's name does not matter
		if err := os.WriteFile(file, []byte(input), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, stdout, stderr := onTable(t, table, "", "import", "--org", "o1", file); status != 0 || stdout != "imported 0, skipped 50, refused 0\n" {
			t.Errorf("%s, from a file: %d, %s%s", name, status, stdout, stderr)
		}
	}
	_, table := tabletest.Client(t)
	for _, empty := range []string{"", gzipped(t, ""), "\ufeff", "\n"} {
		if status, stdout, stderr := onTable(t, table, empty, "import", "--org", "o1", "-"); status != 0 || stdout != "imported 0, skipped 0, refused 0\n" {
			t.Errorf("%q: %d, %s%s", empty, status, stdout, stderr)
		}
	}
}

// The lines before the damage are imported and counted, and the failure is reported in one line.
func TestImport_StopsAtDamagedGzip(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
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
		status, stdout, stderr := onTable(t, name, test.input, "import", "--org", org, "-")
		stored := len(transfertest.StoredGroups(t, tbl, org))
		if status != 1 || stored < test.imported || stdout != fmt.Sprintf("imported %d, skipped 0, refused 0\n", stored) ||
			!strings.Contains(stderr, test.want) || strings.Count(stderr, "marketmeter import: ") != 1 || strings.Contains(stderr, "line 1: ") {
			t.Errorf("%d bytes: %d, %s%s%d are stored; want at least %d and %q", len(test.input), status, stdout, stderr, stored, test.imported, test.want)
		}
	}
}

func TestImport_NamesOtherFormatsOnce(t *testing.T) {
	t.Parallel()
	_, table := tabletest.Client(t)
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
		status, stdout, stderr := onTable(t, table, test.input, "import", "--org", "o1", "-")
		if status != 1 || stdout != "imported 0, skipped 0, refused 0\n" || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: %d, %s%swant 1 and one line with %q", name, status, stdout, stderr, test.want)
		}
	}
}
