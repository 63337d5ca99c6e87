package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func (a *API) listGroups(w http.ResponseWriter, r *http.Request) error {
	request, err := a.listRequest(r)
	if err != nil {
		return err
	}
	return a.writePage(w, r, "usageRecordGroups", func(buffer []byte, encode encodePage) (time.Duration, error) {
		return a.Table.List(r.Context(), organization(r), request, buffer, encode)
	})
}

// encodePage is called with a page: its objects in the API's JSON, joined by commas.
type encodePage = func(objects []byte, page metering.GroupPage) error

// writePage responds with a page of a list, whose objects are in the member of that name.
func (a *API) writePage(w http.ResponseWriter, r *http.Request, member string, list func(buffer []byte, encode encodePage) (laterBy time.Duration, err error)) error {
	memory, ok := a.pages.Get().(*[]byte)
	if !ok {
		memory = new([]byte)
	}
	defer a.pages.Put(memory)
	var made struct { // one variable for the closure, one allocation
		body, encoded  []byte
		coding, cursor string
	}
	begun := append(append(append((*memory)[:0], `{"`...), member...), `":[`...)
	laterBy, err := list(begun, func(objects []byte, page metering.GroupPage) (err error) {
		made.body = append(objects, `],"nextOffset":`...)
		made.body = append(strconv.AppendInt(made.body, int64(page.NextOffset), 10), '}')
		made.cursor = page.NextCursor
		made.encoded, made.coding, err = a.compress(r, made.body)
		return err
	})
	if err != nil {
		return err
	}
	*memory = made.body
	if laterBy > 0 {
		exchangeOf(r).warning = fmt.Sprintf("the next page begins where a request has it begin that came %v later, by the clock of its function", laterBy)
	}
	linkNext(w, r, made.cursor)
	writeCompressed(w, http.StatusOK, made.encoded, made.coding)
	return nil
}

// maxLink is the max size of a Link header in bytes: API Gateway allows 10,240 bytes for all
// headers.
const maxLink = 8_000

// linkNext sets the Link header to the next page. The link is relative to the request, because the
// path that the client used may differ from ours.
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
	request = a.pageRequest(r, p)
	if request.Filter, err = groupFilter(p, request.Now); err != nil {
		return request, err
	}
	err = readPaging(p, &request)
	return request, err
}

// pageRequest is a request for a list with these parameters, without its filter and paging.
func (a *API) pageRequest(r *http.Request, p map[string]string) metering.ListRequest {
	return metering.ListRequest{
		Client: exchangeOf(r).keyID, Query: listQuery(p), MaxSize: metering.MaxListSize, Now: a.Now(), ReadFor: cmp.Or(a.ListFor, 10*time.Second),
	}
}

// readPaging reads limit, offset and cursor.
func readPaging(p map[string]string, request *metering.ListRequest) (err error) {
	if request.Offset, request.Limit, err = page(p); err != nil {
		return err
	}
	request.Cursor = p["cursor"]
	if _, both := p["offset"]; both && request.Cursor != "" {
		return metering.Errorf(metering.Invalid, "offset and cursor are given: give one of them, a cursor knows its offset")
	}
	return nil
}

// listQuery is the query of a list without the paging parameters, the same on all of its pages.
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
	if f.ProductID, err = identifier(p, "productId", metering.ParseProductID); err != nil {
		return f, err
	}
	if f.EntitlementID, err = identifier(p, "entitlementId", metering.StoredEntitlementID); err != nil {
		return f, err
	}
	if f.BuyerID, err = identifier(p, "buyerId", metering.ParseBuyerID); err != nil {
		return f, err
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
	err = readDays(p, now, &f)
	return f, err
}

// readDays reads the days of a list, with their defaults.
func readDays(p map[string]string, now time.Time, f *metering.GroupFilter) (err error) {
	if f.EndDate, err = day(p, "endDate"); err != nil {
		return err
	}
	if f.EndDate == "" {
		f.EndDate = metering.DayOf(now)
	}
	if f.StartDate, err = day(p, "startDate"); err != nil {
		return err
	}
	if f.StartDate == "" {
		f.StartDate = f.EndDate.AddDays(-metering.DefaultWindowDays)
	}
	if f.StartDate > f.EndDate {
		return metering.Errorf(metering.Invalid, "startDate is %s and endDate %s: the start must not be after the end", f.StartDate, f.EndDate)
	}
	return nil
}

func metaInfoFilter(text string) (map[string]any, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > metering.MaxMetaInfoFilter {
		return nil, metering.Errorf(metering.Invalid, "metaInfo has %d bytes: it may have at most %d", len(text), metering.MaxMetaInfoFilter)
	}
	document, err := wire.DecodeDocument([]byte(text))
	if err != nil {
		return nil, metering.Errorf(metering.Invalid, "metaInfo must be a JSON object that the groups' metaInfo contains: %v", err)
	}
	return document, nil
}
