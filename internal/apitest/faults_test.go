package apitest

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/seedtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// trial is an operation over a network that fails as planned, repeated until the client receives
// its result. Each response on the way is checked against what is stored then, read without the
// faults.
type trial struct {
	effect    effect
	client    *dynamodb.Client // without the faults
	tableName string
	expected  *course // nil to find out what is expected

	plan     tabletest.Plan
	late     tabletest.Late
	patience time.Duration                                              // of the client for a response, until the attempt that goes wrong
	alike    bool                                                       // it must take no more attempts than without a fault
	hurried  bool                                                       // the client retries at once
	without  func(*dynamodb.Client, *tabletest.Faults) *dynamodb.Client // what the faulty client lacks; nil if nothing

	attempt atomic.Int64 // the current one, the first being 0
	began   atomic.Int64 // the attempt at which it goes wrong; -1 before that
}

// course is how an operation goes without a fault.
type course struct {
	body    string
	changed map[string]string // items, in the form of world.plain
	tries   int
	repeats int    // of the client, if it has to repeat the request
	fails   []bool // by kind, whether any of its requests fails in that way
	world   *world // nil unless others may share it, because it is only read
}

const usualPatience = 20 * time.Second

// run returns what was wrong, or "".
func (tr *trial) run(ctx context.Context) (c *course, wrong string, err error) {
	w := newWorld(tr.client, tr.tableName)
	w.effect = tr.effect
	recorded, requests := tabletest.Record(ctx)
	w.requests = requests
	if tr.expected != nil && tr.expected.world != nil {
		w.share(tr.expected.world)
	} else if err := w.prepare(recorded, tr.effect); err != nil {
		return nil, "", fmt.Errorf("%s: preparing it: %w", tr.effect.name, err)
	}
	before, err := w.items(ctx)
	if err != nil {
		return nil, "", err
	}
	prepared := len(requests())
	faults := tabletest.Planned(tr.plan)
	var transport http.RoundTripper = faults
	if tr.effect.hasty {
		transport = tabletest.ShortPages(faults, 1)
	}
	faulty := tabletest.NewClient(tabletest.Recorded(transport))
	if tr.hurried {
		faulty = withoutBackoff(faulty)
	}
	if tr.without != nil {
		faulty = tr.without(faulty, faults)
	}
	over := table.New(faulty, tr.tableName)

	state, done := before, tr.expected != nil && len(tr.expected.changed) == 0
	for attempt := 0; ; attempt++ {
		tr.attempt.Store(int64(attempt))
		if attempt > 0 && !tr.effect.steady {
			w.times = append(w.times, w.now().Add(time.Minute))
		}
		patience := tr.patience
		if tr.began.Load() >= 0 && attempt > int(tr.began.Load()) {
			patience = usualPatience
		}
		asking, cancel := context.WithTimeout(recorded, patience)
		got := tr.effect.do(asking, w, over)
		cancel()
		if sent := faults.Tries(); sent > len(requests())-prepared {
			return nil, "it has sent a request under no record, of which items knows nothing", nil
		}
		now, err := w.items(ctx)
		if err != nil {
			return nil, "", err
		}
		changed := w.plain(changes(before, now))
		final := got.status != http.StatusServiceUnavailable
		if tr.expected == nil {
			if !final && attempt < 10 {
				continue
			}
			if !final {
				return nil, "", fmt.Errorf("%s: it does not end: %v", tr.effect.name, got)
			}
			c = &course{body: w.plainText(got.body), changed: changed, tries: faults.Tries(), repeats: attempt}
			if tr.effect.reads {
				c.world = w
			}
			return c, "", nil
		}
		wasDone := done
		if !maps.Equal(state, now) {
			if done = !done && cmp.Equal(tr.expected.changed, changed); !done && (wasDone || !tr.isPart(changed)) {
				return nil, fmt.Sprintf("attempt %d, answered %v: there is a half or a second effect: -once +stored\n%s", attempt, got, cmp.Diff(tr.expected.changed, changed)), nil
			}
		}
		state = now
		switch {
		case !final && tr.alike && attempt >= tr.expected.repeats:
			return nil, fmt.Sprintf("answered %v, where the client's own retries are enough", got), nil
		case !final:
		case got.status == http.StatusOK && !done:
			return nil, fmt.Sprintf("attempt %d: 200 and nothing is stored", attempt), nil
		case got.status == http.StatusOK && (done != wasDone || len(changed) == 0) && w.plainText(got.body) != tr.expected.body:
			return nil, fmt.Sprintf("attempt %d: the answer is other than what was done: -want +got\n%s", attempt, cmp.Diff(tr.expected.body, w.plainText(got.body))), nil
		case got.status != http.StatusOK && (!wasDone || got.status != tr.effect.again):
			return nil, fmt.Sprintf("attempt %d, where it was done before: %v: answered %v", attempt, wasDone, got), nil
		}

		// A request that arrives after the client received the result changes nothing; otherwise it
		// may be the one effect.
		if came, err := tr.late.Arrive(); err != nil {
			return nil, "", err
		} else if came > 0 {
			if now, err = w.items(ctx); err != nil {
				return nil, "", err
			}
		}
		if !maps.Equal(state, now) {
			if changed = w.plain(changes(before, now)); final || done || !cmp.Equal(tr.expected.changed, changed) && !tr.isPart(changed) {
				return nil, fmt.Sprintf("attempt %d, answered %v: what came late has changed\n%s", attempt, got, cmp.Diff(tr.expected.changed, changed)), nil
			}
			state, done = now, cmp.Equal(tr.expected.changed, changed)
		}
		switch {
		case final:
			return nil, "", nil
		case attempt == 50:
			return nil, "it does not end", nil
		}
	}
}

// isPart reports whether an effect that may be stored in parts is stored in part.
func (tr *trial) isPart(changed map[string]string) bool {
	for key, item := range changed {
		if tr.expected.changed[key] != item {
			return false
		}
	}
	return tr.effect.parts
}

// changes are the items that differ from before, empty if they were deleted.
func changes(before, after map[string]string) map[string]string {
	changed := map[string]string{}
	for key, item := range after {
		if before[key] != item {
			changed[key] = item
		}
	}
	for key := range before {
		if _, there := after[key]; !there {
			changed[key] = ""
		}
	}
	return changed
}

// network is a table, and how each operation on it goes without a fault.
type network struct {
	client    *dynamodb.Client
	tableName string
	courses   map[string]*course
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{courses: map[string]*course{}}
	n.client, n.tableName = tabletest.Client(t)
	for _, o := range effects() {
		tr := n.trial(o)
		kinds := tr.kinds()
		fails := make([]bool, len(kinds))
		tr.plan = func(_ int, request *http.Request) tabletest.Fault {
			for i, kind := range kinds {
				fails[i] = fails[i] || kind.Of(request.Clone(request.Context())) != nil
			}
			return nil
		}
		c, _, err := tr.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.fails = fails
		if c.tries == 0 || (len(c.changed) == 0) != o.reads || (c.repeats == 0) == o.hasty {
			t.Fatalf("%s: %d requests and %d repeats have changed %v", o.name, c.tries, c.repeats, c.changed)
		}
		n.courses[o.name] = c
	}
	return n
}

func (n *network) trial(o effect) *trial {
	tr := &trial{effect: o, client: n.client, tableName: n.tableName, expected: n.courses[o.name], patience: usualPatience}
	tr.began.Store(-1)
	return tr
}

// kinds are all ways in which an attempt goes wrong.
func (tr *trial) kinds() []tabletest.Kind {
	return append(slices.Clone(tabletest.Kinds), tr.late.Kind(), unheard, unanswered)
}

// unheard and unanswered are attempts that wait until the client gives up: the write was not done,
// or it was done.
var (
	unheard = tabletest.Kind{Name: "unheard", Of: func(request *http.Request) tabletest.Fault {
		return func(func() (*http.Response, error)) (*http.Response, error) {
			<-request.Context().Done()
			return nil, request.Context().Err()
		}
	}}
	unanswered = tabletest.Kind{Name: "unanswered", Of: func(request *http.Request) tabletest.Fault {
		return tabletest.Delay(request.Context(), time.Hour)
	}}
)

// goesWrong plans that the attempts from the point on go wrong in these ways. If always, the
// attempts after them go wrong in the last of these ways, until the client repeats its request.
func (tr *trial) goesWrong(point int, always bool, kinds ...tabletest.Kind) {
	tr.plan = func(try int, request *http.Request) tabletest.Fault {
		i := try - point
		if i == 0 {
			tr.began.Store(tr.attempt.Load())
		}
		switch {
		case i < 0:
			return nil
		case i < len(kinds):
			return kinds[i].Of(request)
		case always && tr.attempt.Load() == tr.began.Load():
			return kinds[len(kinds)-1].Of(request)
		default:
			return nil
		}
	}
	tr.alike = !always
	for _, k := range kinds {
		switch k.Name {
		case unheard.Name, unanswered.Name:
			tr.patience, tr.alike = 2*time.Second, false // of which a list reserves 1.5 for its checkpoint
		case "in a throttled transaction": // which the client does not retry
			tr.alike = false
		}
	}
}

// For every operation, at every request that it makes, first attempts and retries, and for every
// kind of fault: a 200 means that the operation was done, and a refusal that it had been done
// before. A 503 means that it was done or not, but never in part. A client that repeats the request
// ends with exactly one effect. If one or two attempts go wrong, the client's own retries are
// enough.
func TestFaults_EachAtEachRequest(t *testing.T) {
	programtest.Long(t)
	t.Parallel()
	n := newNetwork(t)
	first := []int{slices.IndexFunc(tabletest.Kinds, func(k tabletest.Kind) bool { return k.Name == "lost" })}
	if *seedtest.Long {
		first = nil
		for i := range new(trial).kinds() {
			first = append(first, i)
		}
	}
	// A trial of the second group waits 2 seconds for the end of its client's patience.
	var busy, waiting errgroup.Group
	busy.SetLimit(12)
	waiting.SetLimit(48)
	var runs, waits []func() error
	try := func(o effect, point int, always bool, kinds ...int) {
		tr, names := n.trial(o), []string{}
		chosen := make([]tabletest.Kind, len(kinds))
		for i, kind := range kinds {
			chosen[i] = tr.kinds()[kind]
			names = append(names, chosen[i].Name)
		}
		tr.goesWrong(point, always, chosen...)
		tr.hurried = true
		run := func() error {
			_, wrong, err := tr.run(t.Context())
			if wrong != "" {
				t.Errorf("%s: from request %d on %s, always: %v: %s", o.name, point, strings.Join(names, " and then "), always, wrong)
			}
			return err
		}
		if tr.patience < usualPatience {
			waits = append(waits, run)
		} else {
			runs = append(runs, run)
		}
	}
	for _, o := range effects() {
		c := n.courses[o.name]
		for point := range c.tries {
			for kind := range new(trial).kinds() {
				if !c.fails[kind] { // the trials would be the one without a fault
					continue
				}
				try(o, point, false, kind)
				try(o, point, true, kind)
				for _, f := range first { // and the retry
					try(o, point, false, f, kind)
				}
			}
		}
	}
	busy.Go(func() error {
		for _, run := range waits {
			waiting.Go(run)
		}
		return waiting.Wait()
	})
	for _, run := range runs {
		busy.Go(run)
	}
	if err := busy.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d trials", len(runs)+len(waits))
}

// Any faults in any order, of several clients at once.
func TestFaults_AtRandom(t *testing.T) {
	t.Parallel()
	n, seeds, end := newNetwork(t), seedtest.Random(t), seedtest.Until(4*time.Second)
	every := effects()
	var trials atomic.Int64
	var all errgroup.Group
	for range 8 {
		r := rand.New(rand.NewPCG(seeds.Uint64(), 0))
		all.Go(func() error {
			for time.Now().Before(end) && !t.Failed() {
				tr, went := n.trial(every[r.IntN(len(every))]), []string{}
				share, kinds := 0.9*r.Float64(), new(trial).kinds()
				tr.plan = func(_ int, request *http.Request) tabletest.Fault {
					if r.Float64() > share || tr.attempt.Load() > 5 {
						went = append(went, "passed")
						return nil
					}
					kind := tr.kinds()[r.IntN(len(kinds)-2)] // none that only time ends
					went = append(went, kind.Name)
					return kind.Of(request)
				}
				_, wrong, err := tr.run(t.Context())
				if err != nil {
					return err
				}
				if wrong != "" {
					t.Errorf("%s: the tries were %q: %s", tr.effect.name, went, wrong)
				}
				trials.Add(1)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d trials", trials.Load())
}

// The trials above would fail without the operation ids or without the check of responses.
func TestFaults_MissingProtectionIsReported(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	for _, c := range []struct {
		what    string
		without func(*dynamodb.Client, *tabletest.Faults) *dynamodb.Client
		faults  []string // at least one of which must be reported for each operation
		told    []string
	}{
		{"operation ids", withoutOperationIDs, []string{"lost", "cut", "short", "flipped", "empty", "500 and done all the same"}, []string{"deleteUsageRecordGroup", "updateUsageMeteringConfigInfo with If-Match", "import a group"}},
		{"checked answers", withoutCheck, []string{"cut", "short", "flipped", "empty"}, []string{"deleteUsageRecordGroup", "updateUsageMeteringConfigInfo"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			for _, o := range effects() {
				if !slices.Contains(c.told, o.name) {
					continue
				}
				var told []string
				for point := range n.courses[o.name].tries {
					for _, kind := range tabletest.Kinds {
						if !slices.Contains(c.faults, kind.Name) {
							continue
						}
						tr := n.trial(o)
						tr.without = c.without
						tr.goesWrong(point, false, kind)
						_, wrong, err := tr.run(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						if wrong != "" {
							told = append(told, fmt.Sprintf("request %d %s: %.200s", point, kind.Name, wrong))
						}
					}
				}
				if t.Logf("%s: %s", o.name, strings.Join(told, "\n")); len(told) == 0 {
					t.Errorf("%s: no fault was told", o.name)
				}
			}
		})
	}
}

// withoutBackoff returns the client, retrying as it does, but at once.
func withoutBackoff(client *dynamodb.Client) *dynamodb.Client {
	return dynamodb.New(client.Options(), func(o *dynamodb.Options) { o.Retryer = hurried{o.Retryer.(aws.RetryerV2)} })
}

type hurried struct{ aws.RetryerV2 }

func (hurried) RetryDelay(int, error) (time.Duration, error) { return 0, nil }

// withoutOperationIDs responds as if no item held an operation id.
func withoutOperationIDs(_ *dynamodb.Client, faults *tabletest.Faults) *dynamodb.Client {
	return tabletest.NewClient(tabletest.Recorded(forgetful{faults}))
}

type forgetful struct{ next http.RoundTripper }

func (f forgetful) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := f.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(body))
	changed := bytes.ReplaceAll(body, []byte(`"_op"`), []byte(`"_no"`))
	changed = bytes.ReplaceAll(changed, []byte(`"_deletion"`), []byte(`"_forgotten"`))
	if err == nil && !bytes.Equal(body, changed) && isSound(response, body) {
		response.ContentLength = int64(len(changed))
		response.Body = io.NopCloser(bytes.NewReader(changed))
		response.Header.Set("X-Amz-Crc32", fmt.Sprint(crc32.ChecksumIEEE(changed)))
	}
	return response, err
}

func isSound(response *http.Response, body []byte) bool {
	return response.Header.Get("X-Amz-Crc32") == fmt.Sprint(crc32.ChecksumIEEE(body))
}

// withoutCheck passes every response to the SDK unchecked.
func withoutCheck(client *dynamodb.Client, faults *tabletest.Faults) *dynamodb.Client {
	return dynamodb.New(client.Options(), func(o *dynamodb.Options) {
		o.HTTPClient = &http.Client{Transport: tabletest.Recorded(faults)}
		o.DisableValidateResponseChecksum = false
	})
}
