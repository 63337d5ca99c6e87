package httpapi

import (
	"net/http"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

func (a *API) listReports(w http.ResponseWriter, r *http.Request) error {
	p, err := queryParameters(r, "partner", "buyerId", "entitlementId", "startDate", "endDate", "limit", "offset", "cursor")
	if err != nil {
		return err
	}
	request := a.pageRequest(r, p)
	if err := readOwnerFilter(p, &request); err != nil {
		return err
	}
	if request.Filter.Partner, err = member(p, "partner", metering.Partners); err != nil {
		return err
	}
	return a.writePage(w, r, "usageRecordReports", func(buffer []byte, encode encodePage) (time.Duration, error) {
		return a.Table.Reports(r.Context(), organization(r), request, buffer, encode)
	})
}

func (a *API) listDailyRecords(w http.ResponseWriter, r *http.Request) error {
	p, err := queryParameters(r, "buyerId", "entitlementId", "startDate", "endDate", "limit", "offset", "cursor")
	if err != nil {
		return err
	}
	partner := metering.Partner(r.PathValue("partner"))
	if !slices.Contains(metering.Partners, partner) {
		return metering.Errorf(metering.NotFound, "there are no daily records of %s: there are those of %s", metering.Quote(partner), metering.OneOf(metering.Partners))
	}
	request := a.pageRequest(r, p)
	if err := readOwnerFilter(p, &request); err != nil {
		return err
	}
	return a.writePage(w, r, "usageMeteringDailyRecords", func(buffer []byte, encode encodePage) (time.Duration, error) {
		return a.Table.DailyRecords(r.Context(), organization(r), partner, request, buffer, encode)
	})
}

// readOwnerFilter reads the entitlement, the buyer, the days and the paging of a list. Filters may
// be combined.
func readOwnerFilter(p map[string]string, request *metering.ListRequest) (err error) {
	f := &request.Filter
	if f.EntitlementID, err = identifier(p, "entitlementId", metering.StoredEntitlementID); err != nil {
		return err
	}
	if f.BuyerID, err = identifier(p, "buyerId", metering.ParseBuyerID); err != nil {
		return err
	}
	if err := readDays(p, request.Now, f); err != nil {
		return err
	}
	return readPaging(p, request)
}
