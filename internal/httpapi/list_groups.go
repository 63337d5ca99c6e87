package httpapi

import (
	"bytes"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/apijson"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// maxEnvelope bounds a page by what it takes in the envelope that Lambda returns, where the body is
// a JSON string: Lambda refuses an envelope over 6,291,556 bytes, and the rest is for headers. The
// local server keeps to it too.
const maxEnvelope = 6_200_000

func (a *API) listGroups(w http.ResponseWriter, r *http.Request) error {
	filter, offset, limit, err := listQuery(r, a.Now())
	if err != nil {
		return err
	}
	var groups []byte
	count, envelope := 0, 0
	more, err := a.Table.List(r.Context(), organization(r), filter, offset, limit, func(g *metering.Group) bool {
		before := len(groups)
		if count > 0 {
			groups = append(groups, ',')
		}
		groups = apijson.AppendGroup(groups, g)
		envelope += escapedLen(groups[before:])
		if envelope > maxEnvelope {
			groups = groups[:before]
			return false
		}
		count++
		return true
	})
	if err != nil {
		return err
	}
	nextOffset := 0
	if more {
		nextOffset = offset + count
	}
	body := make([]byte, 0, len(groups)+64)
	body = append(body, `{"nextOffset":`...)
	body = strconv.AppendInt(body, int64(nextOffset), 10)
	body = append(body, `,"usageRecordGroups":[`...)
	body = append(body, groups...)
	encoded, coding, err := a.compress(r, append(body, "]}"...))
	if err != nil {
		return err
	}
	writeCompressed(w, http.StatusOK, encoded, coding)
	return nil
}

// escapedLen is what b, which is JSON and so has no control characters, takes inside the JSON string of
// Lambda's envelope.
func escapedLen(b []byte) int {
	return len(b) + bytes.Count(b, []byte{'"'}) + bytes.Count(b, []byte{'\\'})
}

// listQuery reads the parameters of the list operation, with their defaults.
func listQuery(r *http.Request, now time.Time) (f metering.GroupFilter, offset, limit int, err error) {
	p, err := queryParameters(r, "partner", "productId", "entitlementId", "buyerId", "status", "source", "metaInfo",
		"startDate", "endDate", "limit", "offset")
	if err != nil {
		return f, 0, 0, err
	}
	if f, err = groupFilter(p, now); err != nil {
		return f, 0, 0, err
	}
	if limit, err = integer(p, "limit", 1, 1000, 1000); err != nil {
		return f, 0, 0, err
	}
	offset, err = integer(p, "offset", 0, math.MaxInt32, 0)
	return f, offset, limit, err
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
		{"entitlementId", f.EntitlementID, metering.CheckEntitlementID},
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
	document, err := apijson.DecodeDocument([]byte(text))
	if err != nil {
		return nil, metering.Errorf(metering.Invalid, "metaInfo must be a JSON object that the groups' metaInfo contains: %v", err)
	}
	return document, nil
}
