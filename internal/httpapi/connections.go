package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"slices"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) listConnections(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	list, err := a.Table.Connections(r.Context(), organization(r))
	if err != nil {
		return err
	}
	return a.writeList(w, r, list, "delete the connections that are not needed")
}

func (a *API) getConnection(w http.ResponseWriter, r *http.Request) error {
	partner, conditions, err := connectionRequest(r)
	if err != nil {
		return err
	}
	stored, err := a.Table.Connection(r.Context(), organization(r), partner)
	if err != nil {
		return err
	}
	return writeStored(w, "the connection", &stored, conditions)
}

func (a *API) putConnection(w http.ResponseWriter, r *http.Request) error {
	p, err := queryParameters(r, "verify")
	if err != nil {
		return err
	}
	verify, err := member(p, "verify", []string{"true", "false"})
	switch {
	case err != nil:
		return err
	case verify == "true" && a.Verify == nil:
		return metering.Errorf(metering.Invalid, "verify=true is not available here: leave it out; the connection is stored without a check of its credentials")
	}
	partner := metering.Partner(r.PathValue("partner"))
	if !slices.Contains(metering.Partners, partner) {
		return metering.Errorf(metering.Invalid, "the partner of the path is %s: it must be %s", metering.Quote(partner), metering.OneOf(metering.Partners))
	}
	conditions, err := readConditions(r)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, metering.MaxReportBody, "application/json")
	if err != nil {
		return err
	}
	sent, err := wire.DecodeConnection(body)
	if err != nil {
		return err
	}
	org := organization(r)
	rules := metering.ConnectionRules{Organization: org, SandboxURL: a.SandboxURL, OwnRole: slices.Contains(a.OwnRoleOrganizations, string(org))}
	change, err := metering.NewConnectionChange(partner, &sent, rules, conditions)
	if err != nil {
		return err
	}
	if verify == "true" {
		if err := a.verify(r.Context(), org, &change); err != nil {
			return err
		}
	}
	after, written, err := a.Table.PutConnection(r.Context(), org, &change)
	if err != nil {
		return err
	}
	if written {
		exchangeOf(r).change = slog.Group("change", "item", "connection", "id", partner, "tag", after.Tag())
	}
	writeChanged(w, r, after.JSON, after.Tag())
	return nil
}

// verify tries the credentials of the connection that the change would store now, and makes the
// change store this one. If the stored one changes meanwhile, the conditions are checked against it
// when the change is stored, as they always are.
func (a *API) verify(ctx context.Context, org metering.OrgID, change *metering.ConnectionChange) error {
	stored, err := a.Table.Connection(ctx, org, change.Connection.Partner)
	if err != nil && metering.CodeOf(err) != metering.NotFound && stored.Err == nil { // one that can't be read is replaced
		return err
	}
	after, err := change.Apply(&stored)
	if err != nil {
		return err
	}
	change.Connection = after
	err = a.Verify(ctx, org, after)
	if metering.CodeOf(err) == metering.Invalid {
		return &statusError{http.StatusUnprocessableEntity, err}
	}
	return err
}

func (a *API) deleteConnection(w http.ResponseWriter, r *http.Request) error {
	partner, conditions, err := connectionRequest(r)
	if err != nil {
		return err
	}
	was, err := a.Table.DeleteConnection(r.Context(), organization(r), partner, conditions)
	if err != nil {
		return err
	}
	exchangeOf(r).change = slog.Group("change", "item", "connection", "id", partner, "deleted", true)
	writeJSON(w, http.StatusOK, was.JSON)
	return nil
}

// connectionRequest reads a request without a body for the connection of the path.
func connectionRequest(r *http.Request) (partner metering.Partner, conditions metering.Conditions, err error) {
	if _, err = queryParameters(r); err != nil {
		return partner, conditions, err
	}
	if partner = metering.Partner(r.PathValue("partner")); !slices.Contains(metering.Partners, partner) {
		return partner, conditions, metering.Errorf(metering.NotFound, "there is no connection to %s: there can be one to %s", metering.Quote(partner), metering.OneOf(metering.Partners))
	}
	conditions, err = readConditions(r)
	return partner, conditions, err
}
