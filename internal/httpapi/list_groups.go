package httpapi

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// maxListSize bounds a page by what it takes in the envelope that Lambda returns, where the body is
// a JSON string: Lambda refuses an envelope over 6,291,556 bytes, and the rest is for headers. The
// local server keeps to it too.
const maxListSize = 6_200_000

func (a *API) listGroups(w http.ResponseWriter, r *http.Request) error {
	request, err := a.listRequest(r)
	if err != nil {
		return err
	}
	memory, ok := a.pages.Get().(*[]byte)
	if !ok {
		memory = new([]byte)
	}
	defer a.pages.Put(memory)
	page, err := a.Table.List(r.Context(), organization(r), request, append((*memory)[:0], `{"usageRecordGroups":[`...))
	if err != nil {
		return err
	}
	body := append(page.JSON, `],"nextOffset":`...)
	body = append(strconv.AppendInt(body, int64(page.NextOffset), 10), '}')
	*memory = body
	encoded, coding, err := a.compress(r, body)
	if err != nil {
		return err
	}
	laterBy, err := page.Kept()
	if err != nil {
		return err
	}
	if laterBy > 0 {
		exchangeOf(r).warning = fmt.Sprintf("the next page begins where a request has it begin that came %v later, by the clock of its function", laterBy)
	}
	linkNext(w, r, page.NextCursor)
	writeCompressed(w, http.StatusOK, encoded, coding)
	return nil
}

// maxLink is the most that a Link header may take: API Gateway allows 10,240 bytes for all headers.
const maxLink = 8_000

// linkNext tells where the next page is, relative to the request: the way that the client took here
// may be another than ours.
func linkNext(w http.ResponseWriter, r *http.Request, cursor string) {
	if cursor == "" {
		return
	}
	next := r.URL.Query()
	next.Del("offset")
	next.Set("cursor", cursor)
	if link := "<?" + next.Encode() + `>; rel="next"`; len(link) <= maxLink {
		w.Header().Set("Link", link)
	}
}

// listRequest reads the parameters of the list operation, with their defaults.
func (a *API) listRequest(r *http.Request) (request metering.ListRequest, err error) {
	p, err := queryParameters(r, "partner", "productId", "entitlementId", "buyerId", "status", "source", "metaInfo",
		"startDate", "endDate", "limit", "offset", "cursor")
	if err != nil {
		return request, err
	}
	request = metering.ListRequest{
		Client: exchangeOf(r).keyID, Query: listQuery(p), Cursor: p["cursor"], MaxSize: maxListSize, Now: a.Now(), ReadFor: cmp.Or(a.ListFor, 10*time.Second),
	}
	if request.Filter, err = groupFilter(p, request.Now); err != nil {
		return request, err
	}
	if request.Limit, err = integer(p, "limit", 1, 1000, 1000); err != nil {
		return request, err
	}
	if request.Offset, err = integer(p, "offset", 0, math.MaxInt32, 0); err != nil {
		return request, err
	}
	if _, both := p["offset"]; both && request.Cursor != "" {
		return request, metering.Errorf(metering.Invalid, "offset and cursor are given: give one of them, a cursor knows its offset")
	}
	return request, nil
}

// listQuery is what a list was asked for, the same on all of its pages.
func listQuery(parameters map[string]string) string {
	query := url.Values{}
	for name, value := range parameters {
		if name != "limit" && name != "offset" && name != "cursor" {
			query.Set(name, value)
		}
	}
	return query.Encode()
}

func groupFilter(p map[string]string, now time.Time) (f metering.GroupFilter, err error) {
	var given []string
	for _, name := range []string{"partner", "productId", "entitlementId", "buyerId"} {
		if _, ok := p[name]; ok {
			given = append(given, name)
		}
	}
	if len(given) > 1 {
		return f, metering.Errorf(metering.Invalid, "%s are given: at most one of partner, productId, entitlementId and buyerId may be", strings.Join(given, " and "))
	}
	f.ProductID, f.EntitlementID, f.BuyerID = p["productId"], p["entitlementId"], p["buyerId"]
	for _, id := range []struct {
		name, value string
		check       func(string) error
	}{
		{"productId", f.ProductID, metering.CheckProductID},
		{"entitlementId", f.EntitlementID, metering.CheckStoredEntitlementID},
		{"buyerId", f.BuyerID, metering.CheckBuyerID},
	} {
		if id.value == "" {
			continue
		}
		if err := id.check(id.value); err != nil {
			return f, metering.Errorf(metering.Invalid, "%s is %s: %v", id.name, metering.Quote(id.value), err)
		}
	}
	if f.Partner, err = member(p, "partner", metering.Partners); err != nil {
		return f, err
	}
	if f.Status, err = member(p, "status", metering.Statuses); err != nil {
		return f, err
	}
	if f.Source, err = member(p, "source", metering.Sources); err != nil {
		return f, err
	}
	if f.MetaInfo, err = metaInfoFilter(p["metaInfo"]); err != nil {
		return f, err
	}
	if f.EndDate, err = day(p, "endDate"); err != nil {
		return f, err
	}
	if f.EndDate == "" {
		f.EndDate = metering.DayOf(now)
	}
	if f.StartDate, err = day(p, "startDate"); err != nil {
		return f, err
	}
	if f.StartDate == "" {
		f.StartDate = f.EndDate.AddDays(-metering.DefaultWindowDays)
	}
	if f.StartDate > f.EndDate {
		return f, metering.Errorf(metering.Invalid, "startDate is %s and endDate %s: the start must not be after the end", f.StartDate, f.EndDate)
	}
	return f, nil
}

// maxMetaInfoFilter is the most that a metaInfo filter may have, in bytes.
const maxMetaInfoFilter = 4096

func metaInfoFilter(text string) (map[string]any, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxMetaInfoFilter {
		return nil, metering.Errorf(metering.Invalid, "metaInfo has %d bytes: it may have at most %d", len(text), maxMetaInfoFilter)
	}
	document, err := wire.DecodeDocument([]byte(text))
	if err != nil {
		return nil, metering.Errorf(metering.Invalid, "metaInfo must be a JSON object that the groups' metaInfo contains: %v", err)
	}
	return document, nil
}
