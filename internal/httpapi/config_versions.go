package httpapi

import (
	"net/http"
	"strconv"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) listConfigVersions(w http.ResponseWriter, r *http.Request) error {
	p, err := queryParameters(r, "limit", "offset")
	if err != nil {
		return err
	}
	offset, limit, err := page(p)
	if err != nil {
		return err
	}
	// A config may consist of quotes, which take two bytes in the envelope.
	versions, more, err := a.Table.ConfigVersions(r.Context(), organization(r), offset, limit, metering.MaxListSize/3)
	if err != nil {
		return err
	}
	body := []byte(`{"nextOffset":`)
	next := 0
	if more {
		next = offset + len(versions)
	}
	body = append(strconv.AppendInt(body, int64(next), 10), `,"versions":[`...)
	for i := range versions {
		if versions[i].Err != nil {
			return versions[i].Err
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = wire.AppendConfigVersion(body, &versions[i])
	}
	return a.writeLarge(w, r, append(body, "]}"...))
}

func (a *API) getConfigVersion(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	text := r.PathValue("version")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || strconv.Itoa(n) != text {
		return metering.Errorf(metering.NotFound, "the config has no version %s: versions are the numbers from 1", metering.Quote(text))
	}
	version, err := a.Table.ConfigVersion(r.Context(), organization(r), n)
	if err == nil {
		err = version.Err
	}
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, wire.AppendConfigVersion(nil, &version))
	return nil
}
