package httpapi

import (
	"log/slog"
	"net/http"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) deleteGroup(w http.ResponseWriter, r *http.Request) error {
	p, err := queryParameters(r, "creationDate")
	if err != nil {
		return err
	}
	created, err := day(p, "creationDate")
	if err != nil {
		return err
	}
	id, err := groupID(r)
	if err != nil {
		return err
	}
	group, err := a.Table.Delete(r.Context(), organization(r), id, created, a.Now())
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
