package httpapi

import (
	"crypto/sha256"
	"log/slog"
	"net/http"
	"strings"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) reportGroup(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	entitlement, err := metering.ParseEntitlementID(r.PathValue("entitlementId"))
	if err != nil {
		return metering.Errorf(metering.NotFound, "there is no entitlement %s", metering.Quote(r.PathValue("entitlementId")))
	}
	body, err := readBody(w, r, metering.MaxReportBody, "application/json")
	if err != nil {
		return err
	}
	group, err := wire.DecodeNewGroup(body)
	if err != nil {
		return err
	}
	if group.EntitlementID != "" && group.EntitlementID != string(entitlement) {
		return metering.Errorf(metering.Invalid, "entitlementID is %s: it must be the entitlement of the path, %s, or absent",
			metering.Quote(group.EntitlementID), metering.Quote(entitlement))
	}
	group.EntitlementID = string(entitlement)
	report := metering.Report{Groups: []metering.NewGroup{group}, Key: key, Request: requestHash(r, body), Now: a.Now()}
	groups, err := a.Table.Report(r.Context(), organization(r), &report)
	if err != nil {
		return err
	}
	exchangeOf(r).change = slog.Group("change", "item", "group", "id", groups[0].ID)
	writeJSON(w, http.StatusOK, wire.AppendGroup(nil, &groups[0]))
	return nil
}

func (a *API) batchCreateGroups(w http.ResponseWriter, r *http.Request) error {
	if _, err := queryParameters(r); err != nil {
		return err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	body, err := readBody(w, r, metering.MaxBatchBody, "application/json")
	if err != nil {
		return err
	}
	news, err := wire.DecodeNewGroups(body)
	if err != nil {
		return err
	}
	report := metering.Report{Groups: news, Batch: true, Key: key, Request: requestHash(r, body), Now: a.Now()}
	groups, err := a.Table.Report(r.Context(), organization(r), &report)
	if err != nil {
		return err
	}
	response := []byte{'['}
	for i := range groups {
		if i > 0 {
			response = append(response, ',')
		}
		response = wire.AppendGroup(response, &groups[i])
	}
	response = append(response, ']')
	if !fits(response) { // new groups fit, so these have grown since they were stored
		return metering.Errorf(metering.Invalid, "all groups are stored, and by now they are larger than a response may be: get them one by one, or list them")
	}
	exchangeOf(r).change = slog.Group("change", "item", "group", "first", groups[0].ID, "count", len(groups))
	return a.writeLarge(w, r, response)
}

// idempotencyKey reads the header Idempotency-Key; it is empty if the request has none.
func idempotencyKey(r *http.Request) (string, error) {
	const header = "Idempotency-Key"
	values := r.Header.Values(header)
	if len(values) == 0 {
		return "", nil
	}
	key := strings.Join(values, ",") // the adapter for Lambda splits headers at commas
	printable := !strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' })
	if key == "" || len(key) > metering.MaxIdempotencyKey || !printable {
		return "", metering.Errorf(metering.Invalid, "%s is %s: it must be 1 to %d printable ASCII characters", header, metering.Quote(key), metering.MaxIdempotencyKey)
	}
	return key, nil
}

// requestHash is the hash of operation, path and body. Neither of the first two holds a control
// character.
func requestHash(r *http.Request, body []byte) metering.RequestHash {
	h := sha256.New()
	h.Write([]byte(exchangeOf(r).operation + "\x00" + r.URL.Path + "\x00"))
	h.Write(body)
	return metering.RequestHash(h.Sum(nil)[:16])
}
