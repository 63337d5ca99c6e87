package apitest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// RFC 9110, 12.5.3: what a client accepts, and what it prefers.
func TestList_IsCompressedIfAccepted(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		groups := []doc{}
		for i := range 40 {
			groups = append(groups, group(fmt.Sprintf("g%02d", i)))
		}
		a.put(t, "acme", groups...)
		r := request{method: "GET", path: listPath("acme")}
		plain := a.do(t, r)
		want(t, plain, http.StatusOK)
		for accepted, compressed := range map[string]bool{
			"gzip":                           true,
			"GZip":                           true,
			"br, gzip":                       true,
			"deflate, gzip;q=1.0, *;q=0.5":   true,
			"gzip;q=0.001":                   true,
			"gzip ; q=0.5 , identity; q=0.5": true,
			"*":                              true,
			"br;q=1, *;q=0.1":                true,
			"identity;q=0, *":                true,
			"br, , gzip":                     true,
			"":                               false,
			"identity":                       false,
			"br":                             false,
			"gzip;q=0":                       false,
			"gzip;q=0.000, *":                false,
			"*;q=0":                          false,
			"gzip;q=0.5, identity":           false,
			"identity;q=1, *;q=0.5":          false,
			"gzip;q=NaN":                     false,
			"gzip;q=":                        false,
			"gzip;q=much":                    false,
			"gzip/x":                         false,
			"gzipped":                        false,
			";=,;":                           false,
		} {
			r.headers = map[string]string{"Accept-Encoding": accepted}
			got := a.do(t, r)
			want(t, got, http.StatusOK)
			if is := got.headers.Get("Content-Encoding") == "gzip"; is != compressed || got.headers.Get("Vary") != "Accept-Encoding" {
				t.Errorf("Accept-Encoding %q: %v", accepted, got.headers)
			}
			wantSame(t, plain.body, got.body)
		}
	})
}

// A small list, and a response that is no list, are not compressed.
func TestList_SmallIsNotCompressed(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"), group("g2"))
		headers := map[string]string{"Accept-Encoding": "gzip"}
		for _, r := range []request{
			{method: "GET", path: listPath("acme"), headers: headers},
			{method: "GET", path: listPath("acme"), headers: headers, query: "limit=" + strings.Repeat("9", 10_000)},
			{method: "GET", path: "/org/acme/usageMeteringConfigInfo", headers: headers},
		} {
			if got := a.do(t, r); got.headers.Get("Content-Encoding") != "" {
				t.Errorf("%s?%.20s: %v", r.path, r.query, got.headers)
			}
		}
	})
}

// A page that gzip can't make smaller would, in base64, be larger than Lambda accepts.
func TestList_IncompressiblePagesFitLambda(t *testing.T) {
	t.Parallel()
	groups := pageBreakers(t, "x")
	random := rand.New(rand.NewPCG(1, 2))
	for i := range groups {
		// Until here, the records are shared: the groups are copies of one.
		records := append(groups[i].MetaInfo.BillableRecords[:0:0], groups[i].MetaInfo.BillableRecords...)
		properties := map[string]any{}
		for name, text := range records[0].Properties {
			noise := make([]byte, len(text.(string)))
			for j := range noise {
				noise[j] = byte('#' + random.IntN('['-'#'))
				if random.IntN(2) == 0 {
					noise[j] = byte(']' + random.IntN('~'-']'))
				}
			}
			properties[name] = string(noise)
		}
		records[0].Properties = properties
		groups[i].MetaInfo.BillableRecords = records
	}
	a := newAPI(t, "lambda")
	a.putGroups(t, groups)
	wantPagesThatFit(t, a)
}
