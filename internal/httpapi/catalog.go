package httpapi

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// writeList writes objects as an array. It returns Invalid if Lambda could not return it; instead
// says how a client gets them then.
func (a *API) writeList(w http.ResponseWriter, r *http.Request, list [][]byte, instead string) error {
	body := slices.Concat([]byte{'['}, bytes.Join(list, []byte{','}), []byte{']'})
	if !fits(body) {
		return metering.Errorf(metering.Invalid, "the list has %d objects of %d bytes in all, more than a response may have: %s", len(list), len(body)+wire.Escapes(body), instead)
	}
	return a.writeLarge(w, r, body)
}

// writeStored responds to a GET of an object of the catalog.
func writeStored[O any](w http.ResponseWriter, what string, stored *metering.Stored[O], conditions metering.Conditions) error {
	return writeTagged(w, what, stored.JSON, stored, conditions)
}

// writeTagged responds to a GET of what is stored, with its JSON. A tag is strong: it names the
// bytes.
func writeTagged(w http.ResponseWriter, what string, json []byte, stored metering.Tagged, conditions metering.Conditions) error {
	if !stored.Matches(conditions) {
		return metering.Errorf(metering.PreconditionFailed, "%s is not the one that If-Match names: its ETag is %q now", what, stored.Tag())
	}
	w.Header().Set("ETag", strconv.Quote(stored.Tag()))
	if !stored.NoneMatches(conditions) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	writeJSON(w, http.StatusOK, json)
	return nil
}

// writeChanged responds to a change with the object after it. The body is what GET returns.
func writeChanged(w http.ResponseWriter, r *http.Request, json []byte, tag string) {
	w.Header().Set("Content-Location", contentLocation(r))
	w.Header().Set("ETag", strconv.Quote(tag))
	writeJSON(w, http.StatusOK, json)
}
