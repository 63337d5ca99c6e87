package httpapi

import (
	"net/http"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) validateGroups(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	body, err := readBody(w, r, metering.MaxBatchBody, "application/json")
	if err != nil {
		return err
	}
	groups, err := wire.DecodeNewGroups(body)
	if err != nil {
		return err
	}
	if err := metering.ValidateBatch(groups, organization(r), nil, a.Now()); err != nil {
		return &statusError{http.StatusInternalServerError, err} // the contract's
	}
	writeJSON(w, http.StatusOK, []byte(`""`))
	return nil
}
