package httpapi

import (
	"bytes"
	"net/http"
	"slices"
	"strconv"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// writeList writes objects as an array. It returns Invalid if Lambda could not return it: in the
// envelope, quotes and backslashes take two bytes. instead says how a client gets them then.
func (a *API) writeList(w http.ResponseWriter, r *http.Request, list [][]byte, instead string) error {
	body := slices.Concat([]byte{'['}, bytes.Join(list, []byte{','}), []byte{']'})
	if size := len(body) + bytes.Count(body, []byte{'"'}) + bytes.Count(body, []byte{'\\'}); size > metering.MaxListSize {
		return metering.Errorf(metering.Invalid, "the list has %d objects of %d bytes in all, more than a response may have: %s", len(list), size, instead)
	}
	encoded, coding, err := a.compress(r, body)
	if err != nil {
		return err
	}
	writeCompressed(w, http.StatusOK, encoded, coding)
	return nil
}

// writeStored responds to a GET of an object of the catalog.
func writeStored[O any](w http.ResponseWriter, what string, stored *metering.Stored[O], conditions metering.Conditions) error {
	tag := stored.Tag()
	if !conditions.Matches(tag, true) {
		return metering.Errorf(metering.PreconditionFailed, "%s is not the one that If-Match names: its ETag is %q now", what, tag)
	}
	w.Header().Set("ETag", strconv.Quote(tag))
	if !conditions.NoneMatches(tag, true) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	writeJSON(w, http.StatusOK, stored.JSON)
	return nil
}

// writeChanged responds to a change with the object after it. The body is what GET returns.
func writeChanged(w http.ResponseWriter, r *http.Request, json []byte, tag string) {
	w.Header().Set("Content-Location", contentLocation(r))
	w.Header().Set("ETag", strconv.Quote(tag))
	writeJSON(w, http.StatusOK, json)
}
