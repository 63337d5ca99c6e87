package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// FuzzListRequest looks for a query of the list operation that is accepted but should not be, or
// whose Link to the next page would belong to another list; and for headers that are misread.
func FuzzListRequest(f *testing.F) {
	for _, query := range []string{
		"", "limit=1&offset=0", "limit=1001", "limit=%2B1", "offset=-0", "limit=01&offset=00", "limit=&status=", "offset=2147483648", "offset=1&cursor=x", "offset=&cursor=x",
		"partner=AWS&status=CREATED&source=API&startDate=2024-02-29&endDate=2024-03-01", "productId=p&buyerId=b", "entitlementId=a%2Fb", "buyerId=%ff",
		"startDate=2024-03-01&endDate=2024-02-29", "endDate=0000-01-01", "status=CREATED&status=CREATED", "limits=1", "a;b", "%", "buyerId=b+c%23&&",
		"metaInfo=%7B%22a%22%3A%5B1%2C%7B%7D%5D%7D&cursor=abc", "metaInfo=%7B%22n%22%3A1e999%7D", "metaInfo=%5B%5D", "metaInfo={\"source\":\"API\"}",
	} {
		f.Add(query, "gzip")
	}
	for _, header := range []string{
		"", "*", "identity", "gzip;q=0", "gzip; q=0.5, identity;q=1.0", "*;q=0.1,gzip;q=0", "GZIP;Q=1", "br, gzip;q=1.001", "deflate,,gzip;q=\"0\"",
		`"1"`, `W/"1", "2"`, `"1" "2"`, `"a,b", `, `"`, `""`, "application/json; charset=utf-8", "application/merge-patch+json",
	} {
		f.Add("", header)
	}
	f.Fuzz(func(t *testing.T, query, header string) {
		fuzzQuery(t, query)
		fuzzAcceptEncoding(t, header)
		fuzzConditions(t, header)
	})
}

var fuzzNow = time.Date(2024, 7, 29, 12, 0, 0, 0, time.UTC)

func listOf(query string) (*http.Request, metering.ListRequest, error) {
	a := &API{Now: func() time.Time { return fuzzNow }}
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/org/o/usageRecordGroup", RawQuery: query}, Header: http.Header{}}
	r = r.WithContext(context.WithValue(context.Background(), exchangeKey{}, &exchange{keyID: "k"}))
	request, err := a.listRequest(r)
	return r, request, err
}

func fuzzQuery(t *testing.T, query string) {
	r, request, err := listOf(query)
	if err != nil {
		wantRefused(t, r, err)
		return
	}
	same := func(what, query string, change func(*metering.ListRequest)) {
		want := request
		change(&want)
		_, got, err := listOf(query)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(metering.Number{})); err != nil || diff != "" {
			t.Fatalf("%s, %q: %v\n%s", what, query, err, diff)
		}
	}
	given, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	sent := func(name string) string { return given.Get(name) }
	same("again", query, func(*metering.ListRequest) {})
	same("in another order", given.Encode(), func(*metering.ListRequest) {})

	w := httptest.NewRecorder()
	linkNext(w, r, "next")
	link := w.Header().Get("Link")
	if next, ok := strings.CutPrefix(strings.TrimSuffix(link, `>; rel="next"`), "<?"); ok {
		same("the next page", next, func(r *metering.ListRequest) { r.Cursor, r.Offset = "next", 0 })
	} else if link != "" || len(query) < maxLink/4 { // a byte takes three in a query
		t.Fatalf("%q has the link %q", query, link)
	}

	// What was read is what was sent, and nothing else.
	filter := request.Filter
	read := map[string]string{
		"partner": string(filter.Partner), "productId": string(filter.ProductID), "entitlementId": string(filter.EntitlementID), "buyerId": string(filter.BuyerID),
		"status": string(filter.Status), "source": string(filter.Source), "cursor": request.Cursor,
	}
	for name, value := range read {
		if value != sent(name) {
			t.Fatalf("%q: %s is %q", query, name, value)
		}
	}
	for name, number := range map[string]int{"limit": request.Limit, "offset": request.Offset} {
		n, err := strconv.ParseInt(sent(name), 10, 32)
		if sent(name) == "" {
			n, err = map[string]int64{"limit": 1000, "offset": 0}[name], nil
		}
		if err != nil || int64(number) != n || strings.ContainsAny(sent(name), "+-") {
			t.Fatalf("%q: %s is %d", query, name, number)
		}
	}
	for name, day := range map[string]metering.Day{"startDate": filter.StartDate, "endDate": filter.EndDate} {
		if _, err := metering.ParseDay(string(day)); err != nil || sent(name) != "" && sent(name) != string(day) {
			t.Fatalf("%q: %s is %q, %v", query, name, day, err)
		}
	}
	if request.Limit < 1 || request.Limit > 1000 || request.Offset < 0 || request.Offset > math.MaxInt32 || filter.StartDate > filter.EndDate {
		t.Fatalf("%q: %+v", query, request)
	}
	if (sent("metaInfo") == "") != (filter.MetaInfo == nil) || !metering.NewMatcher(filter.MetaInfo).Matches(map[string]any(filter.MetaInfo)) {
		t.Fatalf("%q: %+v", query, filter.MetaInfo)
	}
	for name, values := range given {
		if _, known := read[name]; len(values) != 1 || !known && !slices.Contains([]string{"metaInfo", "limit", "offset", "startDate", "endDate"}, name) {
			t.Fatalf("%q is taken, with %s", query, name)
		}
	}
	for _, both := range [][]string{{"partner", "productId", "entitlementId", "buyerId"}, {"offset", "cursor"}} {
		n := 0
		for _, name := range both {
			if sent(name) != "" {
				n++
			}
		}
		if n > 1 {
			t.Fatalf("%q is taken, with more than one of %v", query, both)
		}
	}
}

// wantRefused requires that the request, as a client sends it, gets a 400 with the reason. It needs
// no table: the request does not reach one.
func wantRefused(t *testing.T, r *http.Request, err error) {
	if metering.CodeOf(err) != metering.Invalid {
		t.Fatalf("%q: %#v", r.URL.RawQuery, err)
	}
	a := &API{
		Now: func() time.Time { return fuzzNow }, Log: slog.New(slog.DiscardHandler),
		CountUnits: func(ctx context.Context) (context.Context, func() (float64, float64)) {
			return ctx, func() (float64, float64) { return 0, 0 }
		},
		Authenticate: func(*http.Request) (auth.Principal, error) {
			return auth.Principal{Organization: "o", KeyID: "k", Scopes: auth.Read}, nil
		},
	}
	w := httptest.NewRecorder()
	a.Handler("list").ServeHTTP(w, r)
	var message string
	if err := json.Unmarshal(w.Body.Bytes(), &message); w.Code != http.StatusBadRequest || err != nil || message == "" || !utf8.Valid(w.Body.Bytes()) {
		t.Fatalf("%q: %d %q", r.URL.RawQuery, w.Code, w.Body)
	}
}

var element = regexp.MustCompile(`^[ \t]*(?:([!#$%&'*+.^_\x60|~0-9A-Za-z-]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?)?[ \t]*$`)

// fuzzAcceptEncoding checks prefersGzip against RFC 9110, 12.5.3, for headers that it allows.
func fuzzAcceptEncoding(t *testing.T, header string) {
	got := prefersGzip([]string{header})
	if split := prefersGzip(strings.Split(header, ",")); split != got {
		t.Fatalf("%q: %v, and as several headers %v", header, got, split)
	}
	weights := map[string]float64{}
	for part := range strings.SplitSeq(header, ",") {
		found := element.FindStringSubmatch(part)
		if found == nil {
			return // not allowed by the RFC: a client that sends it can read either
		}
		coding, weight := strings.ToLower(found[1]), 1.0
		if _, twice := weights[coding]; coding == "" {
			continue
		} else if twice {
			return
		}
		if found[2] != "" {
			weight, _ = strconv.ParseFloat(found[2], 64)
		}
		weights[coding] = weight
	}
	gzip, named := weights["gzip"]
	if !named {
		gzip = weights["*"]
	}
	if want := gzip > 0 && gzip >= weights["identity"]; got != want {
		t.Fatalf("%q: that gzip is preferred is %v", header, got)
	}
}

// RFC 9110, 8.8.3. The content of an ETag is not checked further.
var entityTagList = regexp.MustCompile(`^[ \t,]*(?:W/)?"[^"]*"(?:[ \t]*,[ \t,]*(?:W/)?"[^"]*")*[ \t,]*$`)

func fuzzConditions(t *testing.T, header string) {
	for _, name := range []string{"If-Match", "If-None-Match"} {
		conditions, err := readConditions(&http.Request{Header: http.Header{name: {header}}})
		any := strings.TrimSpace(header) == "*"
		if taken := any || entityTagList.MatchString(header); taken != (err == nil) {
			t.Fatalf("%s: %q: %v", name, header, err)
		}
		if err != nil {
			if failure, ok := errors.AsType[*metering.Error](err); !ok || failure.Code != metering.Invalid || !utf8.ValidString(failure.Message) {
				t.Fatalf("%s: %q: %#v", name, header, err)
			}
			continue
		}
		for number := range 12 {
			version := metering.ConfigVersion{Version: number}
			tag := `"` + regexp.QuoteMeta(version.Tag()) + `"`
			strong := regexp.MustCompile(`(^|[ \t,])` + tag).MatchString(header)
			weak := strong || regexp.MustCompile(`(^|[ \t,])W/`+tag).MatchString(header)
			if version.Matches(conditions) && name == "If-Match" && !any && !strong {
				t.Fatalf("If-Match: %q is met by version %d", header, number)
			}
			if !version.NoneMatches(conditions) && !any && !weak {
				t.Fatalf("If-None-Match: %q excludes version %d", header, number)
			}
		}
	}
}
