package httpapi

import (
	"net/http"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// maxBatchBody is what a batch may have: the event that carries it, where it is escaped, must fit in
// Lambda's 6 MB.
const maxBatchBody = 4 << 20

func (a *API) batchValidate(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	body, err := readBody(w, r, maxBatchBody, "application/json")
	if err != nil {
		return err
	}
	groups, err := wire.DecodeNewGroups(body)
	if err != nil {
		return err
	}
	if err := metering.ValidateBatch(groups, organization(r), a.Now()); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, []byte(`""`))
	return nil
}
