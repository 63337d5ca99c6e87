package httpapi

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// Decision 20 has the measurements behind these.
const (
	// compressFrom is the min size that is compressed: a smaller body fits in the first packets
	// either way, and each byte saved costs more and more.
	compressFrom  = 10_000
	compressLevel = gzip.BestSpeed
)

// compress returns the body in the form that the client accepts, and its Content-Encoding: gzip, or
// "" for none. It sets no header, so the caller can still send another response; writeCompressed
// writes the body.
func (a *API) compress(r *http.Request, body []byte) (encoded []byte, coding string, err error) {
	if len(body) < compressFrom || !prefersGzip(r.Header.Values("Accept-Encoding")) {
		return body, "", nil
	}
	w, ok := a.compressors.Get().(*gzip.Writer)
	if !ok {
		if w, err = gzip.NewWriterLevel(nil, compressLevel); err != nil {
			return nil, "", err
		}
	}
	defer func() {
		w.Reset(io.Discard) // or it would hold on to the body
		a.compressors.Put(w)
	}()
	var to bytes.Buffer
	to.Grow(len(body) / 4)
	w.Reset(&to)
	_, err = w.Write(body)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, "", err
	}
	// Lambda returns a compressed body in base64. An incompressible page grows by that, and must
	// not exceed what Lambda can return.
	if base64.StdEncoding.EncodedLen(to.Len()) >= len(body) {
		return body, "", nil
	}
	return to.Bytes(), "gzip", nil
}

// writeLarge writes a JSON response that may be worth compressing.
func (a *API) writeLarge(w http.ResponseWriter, r *http.Request, body []byte) error {
	encoded, coding, err := a.compress(r, body)
	if err != nil {
		return err
	}
	writeCompressed(w, http.StatusOK, encoded, coding)
	return nil
}

// fits reports whether Lambda can return the body, which it escapes in its envelope.
func fits(body []byte) bool { return len(body)+wire.Escapes(body) <= metering.MaxListSize }

// writeCompressed writes what compress has returned.
func writeCompressed(w http.ResponseWriter, status int, encoded []byte, coding string) {
	w.Header().Set("Vary", "Accept-Encoding")
	if coding != "" {
		w.Header().Set("Content-Encoding", coding)
	}
	writeJSON(w, status, encoded)
}

// prefersGzip reads Accept-Encoding (RFC 9110, 12.5.3), all values: the adapter for Lambda splits
// this header at its commas. Gzip must be accepted, with at least the weight of the identity
// coding.
func prefersGzip(acceptEncoding []string) bool {
	weights := map[string]float64{}
	for element := range strings.SplitSeq(strings.Join(acceptEncoding, ","), ",") {
		coding, parameters, err := mime.ParseMediaType(element)
		if err != nil {
			continue // empty or not readable
		}
		weights[coding] = 1
		if q, weighted := parameters["q"]; weighted {
			weights[coding], err = strconv.ParseFloat(q, 64)
			if weight := weights[coding]; err != nil || !(0 <= weight && weight <= 1) {
				delete(weights, coding)
			}
		}
	}
	gzip, named := weights["gzip"]
	if !named {
		gzip = weights["*"]
	}
	return gzip > 0 && gzip >= weights["identity"]
}
