package httpapi

import (
	"net/http"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) validateGroups(w http.ResponseWriter, r *http.Request) error {
	parameters, err := queryParameters(r, "explain")
	if err != nil {
		return err
	}
	explain, err := member(parameters, "explain", []string{"true", "false"})
	if err != nil {
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
	org := organization(r)
	var terms metering.TermsByEntitlement
	if ids, billable := metering.EntitlementsOf(groups); len(ids) > 0 {
		if terms, err = a.Table.TermsOf(r.Context(), org, ids, billable); err != nil {
			return err
		}
	}
	if explain == "true" {
		return a.explainGroups(w, r, metering.ExplainBatch(groups, org, terms, a.Now()))
	}
	if err := metering.ValidateBatch(groups, org, terms, a.Now()); err != nil {
		return &statusError{http.StatusInternalServerError, err} // the contract's
	}
	writeJSON(w, http.StatusOK, []byte(`""`))
	return nil
}

func (a *API) explainGroups(w http.ResponseWriter, r *http.Request, groups []metering.ExplainedGroup) error {
	memory, ok := a.pages.Get().(*[]byte)
	if !ok {
		memory = new([]byte)
	}
	defer a.pages.Put(memory)
	body := wire.AppendExplanation((*memory)[:0], groups)
	if !fits(body) {
		return refusedWith(http.StatusRequestEntityTooLarge, "the explanation of these %d groups is larger than a response may be: explain fewer at once", len(groups))
	}
	*memory = body
	return a.writeLarge(w, r, body)
}
