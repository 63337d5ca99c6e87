package httpapi

import (
	"log/slog"
	"net/http"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) listEntitlements(w http.ResponseWriter, r *http.Request) error {
	p, err := queryParameters(r, "partner", "productId", "buyerId", "externalId", "limit", "offset")
	if err != nil {
		return err
	}
	filter := metering.EntitlementFilter{ExternalID: p["externalId"]}
	if filter.Partner, err = member(p, "partner", metering.Partners); err != nil {
		return err
	}
	if filter.ProductID, err = identifier(p, "productId", metering.ParseProductID); err != nil {
		return err
	}
	if filter.BuyerID, err = identifier(p, "buyerId", metering.ParseBuyerID); err != nil {
		return err
	}
	offset, limit, err := page(p)
	if err != nil {
		return err
	}
	list, err := a.Table.Entitlements(r.Context(), organization(r), filter, offset, limit)
	if err != nil {
		return err
	}
	return a.writeList(w, r, list, "ask for fewer with limit, and for the next ones with offset")
}

func (a *API) getEntitlement(w http.ResponseWriter, r *http.Request) error {
	id, conditions, err := entitlementRequest(r)
	if err != nil {
		return err
	}
	stored, err := a.Table.Entitlement(r.Context(), organization(r), id)
	if err != nil {
		return err
	}
	return writeStored(w, "the entitlement", &stored, conditions)
}

func (a *API) putEntitlement(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	id, err := metering.ParseEntitlementID(r.PathValue("entitlementId"))
	if err != nil {
		return metering.Errorf(metering.Invalid, "the entitlement of the path is %s: %v", metering.Quote(r.PathValue("entitlementId")), err)
	}
	conditions, err := readConditions(r)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, metering.MaxReportBody, "application/json")
	if err != nil {
		return err
	}
	sent, err := wire.DecodeEntitlement(body)
	if err != nil {
		return err
	}
	change, err := metering.NewEntitlementChange(organization(r), id, &sent, conditions, a.Now())
	if err != nil {
		return err
	}
	after, written, err := a.Table.PutEntitlement(r.Context(), &change)
	if err != nil {
		return err
	}
	if written {
		exchangeOf(r).change = slog.Group("change", "item", "entitlement", "id", id, "tag", after.Tag())
	}
	writeChanged(w, r, after.JSON, after.Tag())
	return nil
}

func (a *API) deleteEntitlement(w http.ResponseWriter, r *http.Request) error {
	id, conditions, err := entitlementRequest(r)
	if err != nil {
		return err
	}
	after, written, err := a.Table.DeleteEntitlement(r.Context(), organization(r), id, metering.EntitlementDeletion{Conditions: conditions, Now: a.Now()})
	if err != nil {
		return err
	}
	if written {
		exchangeOf(r).change = slog.Group("change", "item", "entitlement", "id", id, "tag", after.Tag())
	}
	return writeStored(w, "the entitlement", &after, metering.Conditions{})
}

// entitlementRequest reads a request without a body for the entitlement of the path.
func entitlementRequest(r *http.Request) (id metering.EntitlementID, conditions metering.Conditions, err error) {
	if _, err = queryParameters(r); err != nil {
		return id, conditions, err
	}
	if id, err = metering.ParseEntitlementID(r.PathValue("entitlementId")); err != nil {
		return id, conditions, metering.Errorf(metering.NotFound, "there is no entitlement %s", metering.Quote(r.PathValue("entitlementId")))
	}
	conditions, err = readConditions(r)
	return id, conditions, err
}
