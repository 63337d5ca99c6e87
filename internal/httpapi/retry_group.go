package httpapi

import (
	"log/slog"
	"net/http"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) retryGroup(w http.ResponseWriter, r *http.Request) error {
	p, err := queryParameters(r, "creationDate")
	if err != nil {
		return err
	}
	retry := metering.Retry{Now: a.Now()}
	if retry.Created, err = day(p, "creationDate"); err != nil {
		return err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	if key != "" {
		hash := metering.HashKey(key)
		retry.Key = &hash
	}
	id, err := groupID(r)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, metering.MaxReportBody, "application/json")
	if err != nil {
		return err
	}
	if len(body) > 0 {
		return metering.Errorf(metering.Invalid, "the body has %d bytes: a retry takes none", len(body))
	}
	group, err := a.Table.Retry(r.Context(), organization(r), id, retry)
	if metering.CodeOf(err) == metering.Conflict {
		return &statusError{http.StatusBadRequest, err} // the contract's
	}
	if err != nil {
		return err
	}
	exchangeOf(r).change = slog.Group("change", "item", "group", "id", group.ID)
	writeJSON(w, http.StatusOK, wire.AppendGroup(nil, &group))
	return nil
}
