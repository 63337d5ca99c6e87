package httpapi

import (
	"bytes"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// organization is the organization of the key. In a handler it is also the path's: authorize has
// compared them.
func organization(r *http.Request) metering.OrgID { return exchangeOf(r).organization }

// queryParameters reads the query strictly: known names, each at most once. A parameter with an
// empty value counts as absent.
func queryParameters(r *http.Request, known ...string) (map[string]string, error) {
	if n := strings.Count(r.URL.RawQuery, "&") + 1; n > metering.MaxQueryParameters {
		return nil, metering.Errorf(metering.Invalid, "the query string has %d parameters: it may have at most %d", n, metering.MaxQueryParameters)
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &metering.Error{
			Code: metering.Invalid, Message: "the query string can't be read: it must be name=value pairs, percent-encoded, joined by &", Cause: err,
		}
	}
	parameters := make(map[string]string, len(values))
	for name, all := range values {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, metering.Errorf(metering.Invalid, "the query parameter %s is unknown: this operation takes none", metering.Quote(name))
		case !slices.Contains(known, name):
			return nil, metering.Errorf(metering.Invalid, "the query parameter %s is unknown: this operation takes %s", metering.Quote(name), strings.Join(known, ", "))
		case len(all) > 1:
			return nil, metering.Errorf(metering.Invalid, "the query parameter %s is there %d times: give it once", name, len(all))
		case !utf8.ValidString(all[0]):
			return nil, metering.Errorf(metering.Invalid, "the query parameter %s is not UTF-8", name)
		}
		if all[0] != "" {
			parameters[name] = all[0]
		}
	}
	return parameters, nil
}

// member reads a parameter that must be one of a set, or absent.
func member[S ~string](parameters map[string]string, name string, values []S) (S, error) {
	value, ok := parameters[name]
	if ok && !slices.Contains(values, S(value)) {
		return "", metering.Errorf(metering.Invalid, "%s is %s: it must be %s", name, metering.Quote(value), metering.OneOf(values))
	}
	return S(value), nil
}

// day reads a parameter that must be a day, or absent.
func day(parameters map[string]string, name string) (metering.Day, error) {
	value, ok := parameters[name]
	if !ok {
		return "", nil
	}
	d, err := metering.ParseDay(value)
	if err != nil {
		return "", metering.Errorf(metering.Invalid, "%s is %s: %v", name, metering.Quote(value), err)
	}
	return d, nil
}

// integer reads a parameter that must be an integer from least to most, or absent.
func integer(parameters map[string]string, name string, least, most, absent int) (int, error) {
	value, ok := parameters[name]
	if !ok {
		return absent, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most || value[0] == '+' || value[0] == '-' {
		return 0, metering.Errorf(metering.Invalid, "%s is %s: it must be %d to %d", name, metering.Quote(value), least, most)
	}
	return n, nil
}

// page reads the offset and the limit of a list.
func page(parameters map[string]string) (offset, limit int, err error) {
	if limit, err = integer(parameters, "limit", 1, metering.MaxListLimit, metering.MaxListLimit); err != nil {
		return 0, 0, err
	}
	offset, err = integer(parameters, "offset", 0, math.MaxInt32, 0)
	return offset, limit, err
}

// identifier reads a parameter with parse. It returns an empty identifier if it is absent.
func identifier[ID ~string](parameters map[string]string, name string, parse func(string) (ID, error)) (ID, error) {
	value := parameters[name]
	if value == "" {
		return "", nil
	}
	id, err := parse(value)
	if err != nil {
		return "", metering.Errorf(metering.Invalid, "%s is %s: %v", name, metering.Quote(value), err)
	}
	return id, nil
}

// readBody reads a JSON body of at most limit bytes; a body without a Content-Type is read as JSON.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, mediaTypes ...string) ([]byte, error) {
	if contentType := r.Header.Get("Content-Type"); contentType != "" {
		mediaType, parameters, err := mime.ParseMediaType(contentType)
		charset := parameters["charset"]
		if err != nil || !slices.Contains(mediaTypes, mediaType) || (charset != "" && !strings.EqualFold(charset, "utf-8")) {
			if r.Method == http.MethodPatch {
				w.Header().Set("Accept-Patch", strings.Join(mediaTypes, ", ")) // RFC 5789, 2.2
			}
			return nil, refusedWith(http.StatusUnsupportedMediaType, "the Content-Type is %s: it must be %s, in UTF-8",
				metering.Quote(contentType), strings.Join(mediaTypes, " or "))
		}
	}
	// All values: the adapter for Lambda splits this header at its commas.
	if encoding := strings.Join(r.Header.Values("Content-Encoding"), ", "); encoding != "" && !strings.EqualFold(encoding, "identity") {
		w.Header().Set("Accept-Encoding", "identity") // RFC 9110, 15.5.16
		return nil, refusedWith(http.StatusUnsupportedMediaType, "the Content-Encoding is %s: the body must be sent as it is", metering.Quote(encoding))
	}
	var body []byte
	var err error
	tooLarge := r.ContentLength > limit
	if !tooLarge {
		buffer := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), usualBody)+bytes.MinRead))
		_, err = buffer.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
		body = buffer.Bytes()
		_, tooLarge = errors.AsType[*http.MaxBytesError](err)
	}
	if tooLarge {
		return nil, refusedWith(http.StatusRequestEntityTooLarge, "the body is too large: it may have at most %d bytes", limit)
	}
	if err != nil {
		return nil, &metering.Error{Code: metering.Invalid, Message: "the body can't be read to its end", Cause: err}
	}
	return body, nil
}

// usualBody is how many bytes a body may have for which memory is allocated before it arrives.
const usualBody = 256 << 10

// maxDiscarded is how many bytes of an unread body are discarded: as many as API Gateway lets
// through.
const maxDiscarded = 10 << 20

// Refuse calls answer, which responds to a request whose body may still be arriving, and then reads
// and discards the body. If the connection closed at once, a client that is still writing would
// never read the response. A client that writes nothing more gets the response too. A client that
// waits for 100 Continue is not sent one.
func Refuse(w http.ResponseWriter, r *http.Request, answer func()) {
	connection := http.NewResponseController(w)
	if r.ContentLength < 0 || r.ContentLength > maxDiscarded {
		w.Header().Set("Connection", "close") // the end of the body may never be read
	}
	bodyFollows := r.ContentLength != 0 && r.Header.Get("Expect") == "" && connection.EnableFullDuplex() == nil
	answer()
	if bodyFollows && connection.Flush() == nil {
		_, _ = io.CopyN(io.Discard, r.Body, maxDiscarded)
	}
}
