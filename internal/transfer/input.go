package transfer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// plainText returns the text of an input: the input itself or, if it is gzip, its content. It fails
// if the input can't be JSON lines from its first bytes, and names the format instead of refusing
// each line. It waits for 4 bytes of the input.
func plainText(from io.Reader) (io.Reader, error) {
	input := bufio.NewReader(from)
	compressed, err := formatOf(input)
	if err != nil || !compressed {
		return input, err
	}
	inside, err := gzip.NewReader(input)
	if err != nil {
		return nil, damagedGzip(err)
	}
	text := bufio.NewReader(gzipReader{inside})
	if compressed, err = formatOf(text); compressed {
		err = errors.New("the input is gzip within gzip: decompress it once")
	}
	return text, err
}

// formats are the first bytes of files that are often mistaken for JSON lines. A longer prefix
// comes before one that it begins with.
var formats = []struct{ begin, name, remedy string }{
	{"\xff\xfe\x00\x00", "UTF-32", "`iconv -f UTF-32 -t UTF-8`"},
	{"\x00\x00\xfe\xff", "UTF-32", "`iconv -f UTF-32 -t UTF-8`"},
	{"\xff\xfe", "UTF-16", "`iconv -f UTF-16 -t UTF-8`"},
	{"\xfe\xff", "UTF-16", "`iconv -f UTF-16 -t UTF-8`"},
	{"\x28\xb5\x2f\xfd", "compressed with zstd", "`zstd -dc`"},
	{"\xfd7zXZ", "compressed with xz", "`xz -dc`"},
	{"BZh", "compressed with bzip2", "`bzip2 -dc`"},
	{"\x04\x22\x4d\x18", "compressed with lz4", "`lz4 -dc`"},
	{"\x1f\x9d", "compressed with compress", "`uncompress -c`"},
	{"PK\x03\x04", "a zip archive", "`unzip -p`"},
	{"7z\xbc\xaf", "a 7z archive", "`7z e -so`"},
	{"id,organizationID,", "CSV, as `marketmeter export --format csv` writes it", "an export of JSON lines, the default"},
}

// formatOf reports whether the next bytes of r are gzip. It fails if they are another format that
// can't be JSON lines.
func formatOf(r *bufio.Reader) (isGzip bool, err error) {
	if _, err := r.Peek(4); err != nil && !errors.Is(err, io.EOF) {
		return false, nil //nolint:nilerr // the next Read returns it
	}
	begin, _ := r.Peek(min(r.Buffered(), 512)) // never fails
	if bytes.HasPrefix(begin, []byte("\x1f\x8b")) {
		return true, nil
	}
	text := bytes.TrimPrefix(begin, []byte("\ufeff"))
	for _, f := range formats {
		if bytes.HasPrefix(text, []byte(f.begin)) {
			return false, fmt.Errorf("the input is %s: it must be JSON lines in UTF-8, plain or with gzip; convert it with %s first", f.name, f.remedy)
		}
	}
	if len(begin) > 262 && string(begin[257:262]) == "ustar" {
		return false, errors.New("the input is a tar archive: it must be JSON lines in UTF-8, plain or with gzip; convert it with `tar -xO` first")
	}
	// In UTF-16 an ASCII character has a zero byte before or after it, in UTF-32 three. JSON has
	// none.
	if i := bytes.IndexByte(begin, 0); i >= 0 {
		name, zeros := "UTF-16", bytes.Count(begin, []byte{0})
		switch {
		case zeros*2 > len(begin)+2:
			name = "UTF-32"
		case zeros*4 < len(begin):
			return false, fmt.Errorf("%w: its byte %d is zero; it must be JSON lines in UTF-8, plain or with gzip", ErrNoText, i+1)
		}
		order := "LE"
		if i%2 == 0 {
			order = "BE"
		}
		return false, fmt.Errorf("the input is %s: it must be JSON lines in UTF-8, plain or with gzip; convert it with `iconv -f %s%s -t UTF-8` first", name, name, order)
	}
	return false, nil
}

// gzipReader adds to an error that it is about gzip.
type gzipReader struct{ *gzip.Reader }

func (r gzipReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = damagedGzip(err)
	}
	return n, err
}

func damagedGzip(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the gzip data is cut off: it ends too early")
	}
	return fmt.Errorf("the gzip data can't be read: %w", err)
}

// interruptible reads from r until ctx is done, even if a Read of r does not return.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err) // nil is io.EOF
	}()
	context.AfterFunc(ctx, func() { out.CloseWithError(ctx.Err()) })
	return out
}

// errLineTooLong is returned instead of a line of maxLine bytes or more.
var errLineTooLong = metering.Errorf(metering.Invalid, "it is too long: a line has less than %d bytes", maxLine)

// LineReader reads lines. The first may begin with a byte order mark.
type LineReader struct {
	input  *bufio.Reader
	number int // of the line that was read last
}

// ErrNoText is the error of an input that holds a zero byte near its begin.
var ErrNoText = errors.New("the input is no text")

// NewLineReader reads the lines of r, or of the text in it if it is gzip, until ctx is done. It
// returns an error that names the format if r can't be lines of text. With ErrNoText, the lines can
// be read all the same: a file that was cut by a crash may hold zeros.
func NewLineReader(ctx context.Context, r io.Reader) (*LineReader, error) {
	text, err := plainText(interruptible(ctx, r))
	if err != nil && !errors.Is(err, ErrNoText) {
		return nil, err
	}
	return &LineReader{input: bufio.NewReaderSize(text, maxLine)}, err
}

// Next returns the number of the next line, from 1, and its text without the end and surrounding
// blanks. The text is valid until the next call. Next returns io.EOF after the last line. It
// returns Invalid for a line that is too long; the next one can then be read.
func (r *LineReader) Next() (number int, text []byte, err error) {
	r.number++
	text, err = r.read()
	if r.number == 1 {
		text = bytes.TrimPrefix(text, []byte("\ufeff"))
	}
	return r.number, text, err
}

func (r *LineReader) read() ([]byte, error) {
	line, err := r.input.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.input.ReadSlice('\n')
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
