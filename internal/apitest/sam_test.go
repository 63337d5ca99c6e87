package apitest

import (
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// The third way, "sam", is HTTP to `sam local start-api`: the functions and the authorizer as they
// are deployed, in containers. scripts/e2e starts it and runs these tests with
//
//	MARKETMETER_E2E_URL   the URL at which it listens
//	TABLE_NAME            the table that the functions have
//
// Then every test that uses the ways runs over this one alone. The functions have one table, so one
// test runs at a time, and creates and deletes the table. The functions have the real clock and
// their own log, and their requests to DynamoDB can't be observed. Therefore some tests can't run:

// notOverSAM are the tests that don't run this way, with the reason.
var notOverSAM = map[string]string{
	"TestKey_IsValidUntilItExpires":                         theirClock,
	"TestReport_StoresWhatTheEntitlementMakesOfIt":          theirClock,
	"TestReport_InvalidUsageIsStoredAndRetried":             theirClock,
	"TestReport_RulesThatFailMakeItInvalid":                 theirClock,
	"TestReport_IDOfTheClient":                              theirClock,
	"TestReport_IdempotencyKey":                             theirClock,
	"TestBatchCreate_IdempotencyKey":                        theirClock,
	"TestRetry_IdempotencyKeyNeverRetriesTwice":             theirClock,
	"TestRetry_OfAGroupThatFailed":                          theirClock,
	"TestRetry_OfAGroupThatIsBilledInPart":                  theirClock,
	"TestReport_WarmIsOnePut":                               theirAnswers,
	"TestKey_UseIsStoredOnceAnHour":                         theirClock,
	"TestValidate_RefusesMoreThan5MinutesAhead":             theirClock,
	"TestList_CheckpointIsValidForAnHour":                   theirClock,
	"TestList_ContinuesAcrossMidnight":                      theirClock,
	"TestReport_ManyReportsAddUp":                           theirClock,
	"TestReport_RacingReportersStoreOneGroup":               theirClock,
	"TestBatchCreate_IDsOfTheClient":                        theirClock,
	"TestBatchCreate_StoresAllInOrder":                      theirClock,
	"TestReport_UnreadableUsageIsRefused":                   theirTerms,
	"TestConfigVersions_UnreadableOneIsNamed":               theirLog,
	"TestMetric_CreatedIsReadBack":                          theirClock,
	"TestMetric_ChangeThatChangesNothingWritesNothing":      theirClock,
	"TestMetric_OfANewerVersionKeepsWhatThisOneDoesNotKnow": theirClock,
	"TestConfigVersions_GoingBackIsAPut":                    theirClock,
	"TestList_Defaults":                                     theirClock,
	"TestEntitlement_PutIsReadBack":                         theirClock,
	"TestEntitlement_PutReplacesAndKeepsCreationTime":       theirClock,
	"TestEntitlement_CancelTimeIsSetWhenCancelled":          theirClock,
	"TestEntitlement_DeleteIsSoft":                          theirClock,
	"TestEntitlement_OfANewerVersionIsKept":                 theirClock,
	"TestExplain_Preview":                                   theirClock,
	"TestExplain_Problems":                                  theirClock,
	"TestValidate_AgeIsByTheClock":                          theirClock,
	"TestValidate_ChecksTheEntitlement":                     theirClock,
	"TestLog_HasEachChangeOfTheConfig":                      theirLog,
	"TestLog_HasEachDelete":                                 theirLog,
	"TestLog_RedactsKeysInOtherPlaces":                      theirLog,
	"TestErrors_PanicIsA500ThatLeaksNothing":                theirLog,
	"TestList_DroppedCheckpointIsLogged":                    theirLog,
	"TestLog_HasOneLinePerRequest":                          theirLog,
	"TestErrors_StoredNonsenseIsA500ThatLeaksNothing":       theirLog,
	"TestLog_NamesTheKey":                                   theirLog,
	"TestConnection_RefusedValuesAreNotQuoted":              theirLog,
	"TestList_OffsetWithoutCheckpointIsCounted":             theirAnswers,
	"TestList_FarOffsetIsReached":                           theirAnswers,
	"TestList_NewListReadsEmptyRangesAgain":                 theirAnswers,
	"TestList_FewMatchesAreReadToTheEnd":                    theirAnswers,
	"TestList_RepeatContinues":                              theirAnswers,
	"TestList_PageCostsWhatTheFirstCosts":                   theirAnswers,
	"TestList_GroupCreatedBetweenRepeatsIsListed":           theirAnswers,
	"TestLostResponse_IsNoLostWrite":                        theirDynamoDB,
	"TestErrors_TableOutOfReachIsA503":                      theirDynamoDB,
	"TestErrors_ThrottledTableIsA503":                       theirDynamoDB,
	"TestKey_LostUseRefusesNoRequest":                       theirDynamoDB,
	"TestList_NoPageWithoutItsCheckpoint":                   theirDynamoDB,
	"TestKey_FailedCheckIsNoRefusal":                        theirDynamoDB,
	"TestPaths_OtherMethodsAreNotAllowed":                   noRoute,
}

const (
	theirClock    = "it needs the API's clock at a time of its own; TestClock_DefaultIsReal is what there is of it over sam"
	theirTerms    = "a function holds the terms of an entitlement for seconds, those of an earlier test too"
	theirLog      = "it reads the API's log"
	theirDynamoDB = "it needs a DynamoDB that fails"
	theirAnswers  = "it needs a DynamoDB that answers little at once, or looks at what it is asked"
	noRoute       = "no function is reached by a method that has no route, on AWS neither: our 405 is the local server's"
)

// samURL is the URL at which `sam local start-api` listens; empty if it is not used.
var samURL = os.Getenv("MARKETMETER_E2E_URL")

// ways are those that tests use.
func ways() []string {
	if samURL != "" {
		return []string{"sam"}
	}
	return []string{"http", "lambda"}
}

// overSAM counts the requests and tests that used it.
type overSAM struct {
	address string
	clock   *clock
}

var samTests, samRequests atomic.Int64

func (a *api) isSAM() bool {
	_, is := a.way.(overSAM)
	return is
}

// newSAM is the API in sam's containers over an empty table.
func newSAM(t testing.TB) *api {
	name, address := os.Getenv("TABLE_NAME"), strings.TrimPrefix(samURL, "http://")
	client := tabletest.ClientOf(t, name)
	a := &api{client: client, tableName: name, log: &logLines{}, keyLog: &logLines{}, clock: &clock{}}
	a.keys = newKeyring(table.New(client, name))
	a.table, a.way = a.keys.table, overSAM{address, a.clock}
	samTests.Add(1)
	return a
}

func (o overSAM) send(ctx context.Context, r request) (answer, error) {
	samRequests.Add(1)
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", o.address)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	if o.clock.at.Load() == nil {
		r = untilNow(r)
	}
	got, err := roundTrip(conn, r)
	if err != nil {
		return answer{}, err
	}
	return asOnAWS(r, got), nil
}

// untilNow is the request with the suite's now as its today, which is the end of a list that names
// no end. A test that sets the clock means the real time.
func untilNow(r request) request {
	f, e := routed(r.method, r.path)
	if f == nil || e.String() != "GET /org/{orgId}/usageRecordGroup" {
		return r
	}
	const name = "endDate="
	today := name + now.Format(time.DateOnly)
	parameters := strings.Split(r.query, "&")
	if i := slices.Index(parameters, name); i >= 0 {
		parameters[i] = today
	} else if !slices.ContainsFunc(parameters, func(p string) bool { return strings.HasPrefix(p, name) }) {
		parameters = append(parameters, today)
	}
	r.query = strings.TrimPrefix(strings.Join(parameters, "&"), "&")
	return r
}

// carries reports whether the way sends a request to the function as API Gateway does. Over sam it
// does not send
//   - a path with two adjacent slashes, encoded or not: sam merges them, by a redirect or silently;
//   - HEAD: it is routed as GET is, but then sam finds no function for it and responds with 500;
//   - a header that is sent twice: the event has only the first value, not both joined with a
//     comma;
//   - a body that is not UTF-8: sam itself responds; API Gateway sends it in base64.
func (a *api) carries(r request) bool {
	return !a.isSAM() || r.method != http.MethodHead && !strings.Contains(slashes.Replace(r.path), "//") && r.again == nil && utf8.ValidString(r.body)
}

// asOnAWS is sam's response as API Gateway would return it. The differences that tests can see are:
//   - without a route, sam responds with 403 "Missing Authentication Token" as REST APIs do, an
//     HTTP API with 404 "Not Found"; and sam looks for the route with %2F decoded;
//   - if the authorizer fails, sam responds with 502, an HTTP API with 500;
//   - sam names its server.
func asOnAWS(r request, got answer) answer {
	got.headers.Del("Server")
	got.ofGateway = got.headers.Get("Content-Type") == "application/json" // a function names its charset
	f, _ := routed(r.method, slashes.Replace(r.path))
	switch {
	case got.ofGateway && f == nil && got.status == http.StatusForbidden:
		got.status = http.StatusNotFound
	case got.ofGateway && got.status == http.StatusBadGateway:
		got.status = http.StatusInternalServerError
	}
	return got
}

var slashes = strings.NewReplacer("%2F", "/", "%2f", "/")

// wantNow checks that a time is the API's now, and returns it. Over sam it must be near the real
// time.
func (a *api) wantNow(t testing.TB, value any) string {
	t.Helper()
	got, ok := value.(string)
	if a.isSAM() && ok {
		if away := time.Since(parseTime(t, got)).Abs(); away > time.Minute {
			t.Errorf("%s is %v from now", got, away)
		}
		return got
	}
	if want := milliseconds(a.clock.now()); got != want {
		t.Errorf("the time is %v, want %s", value, want)
	}
	return got
}

// Without another clock, everything that depends on the time uses the real time.
func TestClock_DefaultIsReal(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		start := time.Now()
		a.clock.set(start)
		created := func(id string, day int) doc {
			return group(id, doc{"creationTime": milliseconds(start.AddDate(0, 0, day))})
		}
		a.put(t, "acme", created("in two days", 2), created("now", 0), created("29 days ago", -29), created("32 days ago", -32))
		wantSame(t, []string{"now", "29 days ago"}, idsOf(a.listAll(t, "acme", nil)))
		wantSame(t, []string{"32 days ago"}, idsOf(a.listAll(t, "acme", url.Values{"endDate": {milliseconds(start.AddDate(0, 0, -31))[:10]}})))
		got := a.delete(t, "acme", "now", "")
		want(t, got, http.StatusOK)
		a.wantNow(t, parse(t, got.body).(doc)["lastUpdateTime"])

		for minutes, status := range map[time.Duration]int{4: http.StatusOK, 7: http.StatusInternalServerError} {
			body := `[{"records": {"cpu": 1}, "timestamp": "` + milliseconds(start.Add(minutes*time.Minute)) + `"}]`
			if got := a.validate(t, body); got.status != status {
				t.Errorf("%d minutes ahead: %d %s", minutes, got.status, got.body)
			}
		}

		list := request{method: "GET", path: listPath("acme")}
		want(t, a.do(t, list.with(a.expiring(t, start.Add(time.Hour)))), http.StatusOK)
		a.wantNoKey(t, list.with(a.expiring(t, start.Add(-time.Second))), 1, "expired")
	})
}

// TestMain runs all tests, or over sam those that can run that way.
func TestMain(m *testing.M) {
	if samURL == "" {
		if err := overlap(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	status, err := runOverSAM(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "over sam:", err)
		status = 1
	}
	os.Exit(status)
}

// overlap runs four tests per processor at once, unless -parallel is given: most wait for a timeout
// or for DynamoDB Local.
func overlap() error {
	flag.Parse()
	parallel := flag.Lookup("test.parallel").Value
	if parallel.String() != strconv.Itoa(runtime.GOMAXPROCS(0)) {
		return nil
	}
	return parallel.Set(strconv.Itoa(4 * runtime.GOMAXPROCS(0)))
}

// runOverSAM runs the tests that can run this way, those that -run selects or else all, each with
// as many cases as the time of a request over sam allows. It returns an error if no test ran or,
// without -run, if any of them did not run.
func runOverSAM(m *testing.M) (status int, err error) {
	flag.Parse()
	all, err := testsOfWays()
	if err != nil {
		return 1, err
	}
	all = slices.DeleteFunc(all, func(name string) bool { return notOverSAM[name] != "" })
	chosen := flag.Lookup("test.run").Value.String() != ""
	not := slices.Sorted(maps.Keys(notOverSAM))
	settings := map[string]string{"test.parallel": "1", "rapid.checks": "15", "test.skip": oneOf(not)}
	if !chosen {
		settings["test.run"] = oneOf(all)
	}
	for name, value := range settings {
		if err := flag.Set(name, value); err != nil {
			return 1, err
		}
	}
	status = m.Run()
	ran := int(samTests.Load())
	fmt.Printf("over sam: %d tests with %d requests; %d tests can't go that way:\n", ran, samRequests.Load(), len(not))
	for _, name := range not {
		fmt.Printf("  %s: %s\n", name, notOverSAM[name])
	}
	if ran == 0 || !chosen && ran != len(all) {
		return 1, fmt.Errorf("%d tests ran of %d that can", ran, len(all))
	}
	return status, nil
}

func oneOf(names []string) string { return "^(" + strings.Join(names, "|") + ")$" }

// testsOfWays are the tests that use the ways, directly or through another function.
func testsOfWays() ([]string, error) {
	names, err := filepath.Glob("*_test.go")
	if err != nil {
		return nil, err
	}
	files := []*ast.File{}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	callers := map[string]bool{"ways": true}
	for before := 0; before != len(callers); {
		before = len(callers)
		for _, file := range files {
			for _, declared := range file.Decls {
				f, ok := declared.(*ast.FuncDecl)
				if !ok || f.Recv != nil {
					continue
				}
				ast.Inspect(f, func(n ast.Node) bool {
					if call, ok := n.(*ast.CallExpr); ok {
						if to, ok := call.Fun.(*ast.Ident); ok && callers[to.Name] {
							callers[f.Name.Name] = true
						}
					}
					return true
				})
			}
		}
	}
	tests := slices.Sorted(maps.Keys(callers))
	return slices.DeleteFunc(tests, func(name string) bool { return !strings.HasPrefix(name, "Test") }), nil
}

// notOverSAM names only tests that exist.
func TestSAM_NamesTestsThatExist(t *testing.T) {
	t.Parallel()
	all, err := testsOfWays()
	if err != nil {
		t.Fatal(err)
	}
	for name := range notOverSAM {
		if !slices.Contains(all, name) {
			t.Errorf("%s is no test that goes through the ways", name)
		}
	}
}
