package reliability

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// The results of concurrent requests to the same groups and the same config, over a network that
// fails, are as if the requests were done one after the other: each at one moment between the
// request and its response. A request with a 503, or without a response, was done at some moment or
// never.
func TestClientsAtOnceComeOutAsIfInTurn(t *testing.T) {
	t.Parallel()
	random := random(t)
	_, tableName := tabletest.Client(t)
	histories, overlaps, outcomes := 0, 0, map[string]int{}
	for end := until(7 * time.Second); histories == 0 || time.Now().Before(end); {
		history := record(t, tableName, random)
		for _, of := range slices.Sorted(maps.Keys(history)) {
			operations := history[of]
			histories++
			for i, op := range operations {
				outcomes[fmt.Sprint(op.Input.(act).what, " ", op.Output.(outcome).status)]++
				for _, other := range operations[:i] {
					if op.Call < other.Return && other.Call < op.Return {
						overlaps++
					}
				}
			}
			if result := porcupine.CheckOperationsTimeout(modelOf(of), operations, time.Minute); result != porcupine.Ok {
				t.Fatalf("%s: %s\n%s", of, result, tell(operations))
			}
		}
	}
	t.Logf("%d histories, %d pairs at once, %v", histories, overlaps, outcomes)
}

// act is what one client does to a group or, if it names none, to the config.
type act struct {
	what    string // import, delete, read; get, put, patch
	group   string
	value   string // the importing client
	status  string // of the group that is imported
	mapping multipliers
	ifMatch string
}

// outcome is its result; status 0 means that it is unknown.
type outcome struct {
	status  int
	value   string // of the group
	state   string // of the group
	mapping multipliers
	etag    string
}

// multipliers are the config: those of three keys; 0 means that the key has none.
type multipliers [3]int

const config = "config"

func modelOf(of string) porcupine.Model {
	if of == config {
		return configModel
	}
	return groupModel
}

type groupState struct{ value, status string }

// groupModel is one group: it is imported once, and deleted once, if that is allowed.
var groupModel = porcupine.Model{
	Init: func() any { return groupState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(groupState), input.(act), output.(outcome)
		var status int
		next := s
		switch deletable := s.status == "CREATED" || s.status == "INVALID"; {
		case in.what == "read":
			return out.value == s.value && out.state == s.status, s
		case in.what == "import" && s.value == "":
			status, next = 200, groupState{in.value, in.status}
		case in.what == "import":
			status = 409
		case s.value == "":
			status = 404
		case deletable:
			status, next.status = 200, "DELETED"
		default:
			status = 400
		}
		told := status != 200 || in.what != "delete" || out.value == s.value
		return out.status == 0 || out.status == status && told, next
	},
}

// configState has no ETag while the ETag of a change without a response is unknown. A config
// without a mapping is not the same as none.
type configState struct {
	exists  bool
	mapping multipliers
	etag    string
}

// noConfig is the ETag of an organization without a config.
var noConfig = etagOf(0, `{"partnerUsageMeteringConfigs":[]}`)

// etagOf is the ETag of a version of a config, by its bytes.
func etagOf(version int, stored string) string {
	sum := sha256.Sum256([]byte(stored))
	return fmt.Sprintf(`"%d-%x"`, version, sum[:16])
}

// configModel is the config. A change that is allowed sets a new ETag; one that changes nothing
// leaves it as it is.
var configModel = porcupine.Model{
	Init: func() any { return configState{etag: noConfig} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(configState), input.(act), output.(outcome)
		met := in.ifMatch == "" || in.ifMatch == s.etag
		next := s
		switch in.what {
		case "put":
			next.exists, next.mapping = true, in.mapping
		case "patch":
			next.exists = true
			for i, multiplier := range in.mapping {
				next.mapping[i] = cmp.Or(multiplier, s.mapping[i])
			}
		}
		changed := next != s
		switch {
		case out.status == http.StatusPreconditionFailed:
			return in.ifMatch != "" && (s.etag == "" || !met), s
		case !met && s.etag != "":
			return out.status == 0, s // otherwise it would have been 412
		case out.status == 0:
			if changed {
				next.etag = ""
			}
			return true, next
		}
		next.etag = out.etag
		return out.mapping == next.mapping && (changed && out.etag != s.etag || !changed && (out.etag == s.etag || s.etag == "")), next
	},
}

// record lets clients act at the same time, and returns what they did and the results, by group and
// for the config.
func record(t *testing.T, tableName string, random *rand.Rand) map[string][]porcupine.Operation {
	t.Helper()
	const clients, acts = 4, 10
	s := serve(t, tableName)
	o := s.model.organizations[0]
	history, start := map[string][]porcupine.Operation{}, time.Now()
	var mu sync.Mutex
	do := func(ctx context.Context, client int, a act) outcome {
		call := time.Since(start)
		out, err := s.act(ctx, o, a)
		op := porcupine.Operation{ClientId: client, Input: a, Call: call.Nanoseconds(), Output: out, Return: time.Since(start).Nanoseconds()}
		mu.Lock()
		defer mu.Unlock()
		if out.status == 0 {
			op.Return = math.MaxInt64
		}
		if err != nil {
			t.Error(err)
		}
		of := cmp.Or(a.group, config)
		history[of] = append(history[of], op)
		return out
	}

	s.network.fail(storms(rand.New(rand.NewPCG(random.Uint64(), 0))))
	var wait sync.WaitGroup
	for client := range clients {
		random := rand.New(rand.NewPCG(random.Uint64(), 0))
		wait.Go(func() {
			seen := ""
			for i := range acts {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(8) == 0 { // and goes away, whether or not the request was done
					ctx, cancel = context.WithTimeout(t.Context(), rand0(random, 10*time.Millisecond))
				}
				out := do(ctx, client, drawAct(random, fmt.Sprint("client ", client, " act ", i), seen))
				seen = cmp.Or(out.etag, seen)
				cancel()
			}
		})
	}
	wait.Wait()
	s.network.heal()
	for _, group := range contested {
		do(t.Context(), clients, act{what: "read", group: group})
	}
	do(t.Context(), clients, act{what: "get"})
	return history
}

var contested = []string{"g1", "g2"}

func drawAct(random *rand.Rand, value, seen string) act {
	a := act{value: value}
	draw := func(of ...string) string { return of[random.IntN(len(of))] }
	switch a.what = draw("import", "delete", "delete", "get", "put", "patch", "patch"); a.what {
	case "import":
		a.group, a.status = draw(contested...), draw("CREATED", "CREATED", "INVALID", "REPORTED")
	case "delete":
		a.group = draw(contested...)
	case "put":
		a.mapping, a.ifMatch = multipliers{random.IntN(3), random.IntN(3), random.IntN(3)}, draw("", seen)
	case "patch":
		a.mapping[random.IntN(3)], a.ifMatch = 1+random.IntN(99), draw("", seen)
	}
	return a
}

// storms are occasional faults, and sometimes so many that a call of the SDK runs out of attempts.
func storms(random *rand.Rand) func() tabletest.Fault {
	storm := 0
	return func() tabletest.Fault {
		if storm--; storm < 0 && random.IntN(50) == 0 {
			storm = 6 + random.IntN(12)
		}
		if storm < 0 && random.IntN(8) > 0 {
			return tabletest.Pass
		}
		return faultsByName[faultNames[random.IntN(len(faultNames))]]
	}
}

// act executes it on the service.
func (s *service) act(ctx context.Context, o *organization, a act) (outcome, error) {
	r := request{key: s.model.keys[0], headers: map[string]string{"Content-Type": "application/json"}, path: "/usageMeteringConfigInfo"}
	switch a.what {
	case "import":
		return s.importFor(ctx, o, a)
	case "delete":
		r.method, r.path = "DELETE", "/usageRecordGroup/"+a.group
	case "read":
		r.method, r.path = "GET", "/usageRecordGroup"
	case "get":
		r.method = "GET"
	default:
		r.method, r.body = strings.ToUpper(a.what), a.mapping.body()
		if a.ifMatch != "" {
			r.headers["If-Match"] = a.ifMatch
		}
	}
	got, err := sendTo(ctx, s.url, o.name, r)
	if err != nil || got.status == http.StatusServiceUnavailable {
		if ctx.Err() == nil && err != nil {
			return outcome{}, err
		}
		return outcome{}, nil
	}
	out := outcome{status: got.status, etag: got.header.Get("ETag")}
	body, _ := values(got.body).(object)
	switch {
	case got.status != http.StatusOK:
		if a.what == "read" || got.status == http.StatusInternalServerError {
			return out, fmt.Errorf("%s: %d %s", a.what, got.status, got.body)
		}
	case a.what == "delete":
		out.value = body["buyerID"].(string)
	case a.what == "read":
		for _, g := range body["usageRecordGroups"].([]any) {
			if g := g.(object); g["id"] == a.group {
				out.value, out.state = g["buyerID"].(string), g["status"].(string)
			}
		}
	default:
		out.mapping = multipliersIn(body)
	}
	return out, nil
}

func (s *service) importFor(ctx context.Context, o *organization, a act) (outcome, error) {
	g, err := wire.DecodeGroup(fmt.Appendf(nil, `{"id":%q,"buyerID":%q,"entitlementID":"e","partner":"AWS","status":%q,"creationTime":%q}`,
		a.group, a.value, a.status, milliseconds(s.model.now)))
	if err != nil {
		return outcome{}, err
	}
	g.OrganizationID = o.name
	switch stored, err := s.table.Put(ctx, &g); {
	case metering.CodeOf(err) == metering.Unavailable:
		return outcome{}, nil
	case err != nil:
		return outcome{}, errors.Join(errors.New("import"), err)
	case stored:
		return outcome{status: 200}, nil
	default:
		return outcome{status: 409}, nil
	}
}

var mappingKeys = [len(multipliers{})]string{"k0", "k1", "k2"}

func (m multipliers) body() string {
	var members []string
	for i, multiplier := range m {
		if multiplier > 0 {
			members = append(members, fmt.Sprintf(`%q:{"dimensionKey":"d","convertionMultiplier":%d}`, mappingKeys[i], multiplier))
		}
	}
	return `{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMapping":{` + strings.Join(members, ",") + `}}]}`
}

func multipliersIn(config object) (m multipliers) {
	for _, entry := range config["partnerUsageMeteringConfigs"].([]any) {
		mapping := entry.(object)["dimensionMapping"].(object)
		for i, key := range mappingKeys {
			if value, ok := mapping[key].(object); ok {
				m[i], _ = strconv.Atoi(string(value["convertionMultiplier"].(number)))
			}
		}
	}
	return m
}

func tell(history []porcupine.Operation) string {
	var text strings.Builder
	for _, op := range slices.SortedFunc(slices.Values(history), func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) }) {
		fmt.Fprintf(&text, "%9d to %19d ns, client %d: %+v -> %+v\n", op.Call, op.Return, op.ClientId, op.Input, op.Output)
	}
	return text.String()
}

// Histories that must not occur are reported: otherwise TestClientsAtOnceComeOutAsIfInTurn would
// check nothing.
func TestHistoriesThatMustNotBeAreTold(t *testing.T) {
	t.Parallel()
	type step struct {
		in  act
		out outcome
	}
	var (
		importA  = act{what: "import", group: "g", value: "a", status: "CREATED"}
		importB  = act{what: "import", group: "g", value: "b", status: "REPORTED"}
		del      = act{what: "delete", group: "g"}
		read     = act{what: "read", group: "g"}
		done     = outcome{status: 200}
		there    = outcome{status: 409}
		none     = outcome{status: 404}
		kept     = outcome{status: 400}
		unknown  = outcome{}
		deletedA = outcome{status: 200, value: "a"}
		isA      = outcome{status: 200, value: "a", state: "CREATED"}
		goneA    = outcome{status: 200, value: "a", state: "DELETED"}

		put1      = act{what: "put", mapping: multipliers{1}}
		patch2    = act{what: "patch", mapping: multipliers{0, 2}}
		patch2If1 = act{what: "patch", mapping: multipliers{0, 2}, ifMatch: "1"}
		patch3If1 = act{what: "patch", mapping: multipliers{0, 3}, ifMatch: "1"}
		putEmpty  = act{what: "put"}
		get       = act{what: "get"}
		hasNone   = outcome{status: 200, etag: noConfig}
		hasEmpty  = outcome{status: 200, etag: "1"}
		has1      = outcome{status: 200, mapping: multipliers{1}, etag: "1"}
		has12     = outcome{status: 200, mapping: multipliers{1, 2}, etag: "2"}
		has13     = outcome{status: 200, mapping: multipliers{1, 3}, etag: "3"}
		has2      = outcome{status: 200, mapping: multipliers{0, 2}, etag: "2"}
		changed   = outcome{status: 412}
	)
	for _, c := range []struct {
		name   string
		of     string
		atOnce bool
		steps  []step
		want   porcupine.CheckResult
	}{
		{"in turn", "g", false, []step{{del, none}, {importA, done}, {importB, there}, {read, isA}, {del, deletedA}, {del, kept}, {read, goneA}}, porcupine.Ok},
		{"two imports", "g", true, []step{{importA, done}, {importB, done}}, porcupine.Illegal},
		{"two deletes", "g", true, []step{{importA, done}, {del, deletedA}, {del, deletedA}}, porcupine.Illegal},
		{"one of two deletes", "g", true, []step{{importA, done}, {del, deletedA}, {del, kept}}, porcupine.Ok},
		{"another's group deleted", "g", true, []step{{importA, there}, {importB, done}, {del, deletedA}}, porcupine.Illegal},
		{"told and absent", "g", false, []step{{importA, done}, {read, done}}, porcupine.Illegal},
		{"nobody knows, and it is there", "g", false, []step{{importA, unknown}, {read, isA}}, porcupine.Ok},
		{"nobody knows, and it is not there", "g", false, []step{{importA, unknown}, {read, done}}, porcupine.Ok},
		{"refused, and it has happened", "g", false, []step{{importA, done}, {del, none}, {read, goneA}}, porcupine.Illegal},
		{"in turn", config, false, []step{{put1, has1}, {patch2If1, has12}, {patch3If1, changed}, {get, has12}, {patch2, has12}}, porcupine.Ok},
		{"an empty one is not none", config, false, []step{{get, hasNone}, {putEmpty, hasEmpty}, {putEmpty, hasEmpty}, {get, hasEmpty}}, porcupine.Ok}, // seed 726904049910463184
		{"a lost update", config, true, []step{{put1, has1}, {patch2If1, has12}, {patch3If1, has13}}, porcupine.Illegal},
		{"a patch of what was before", config, false, []step{{put1, has1}, {patch2, has2}}, porcupine.Illegal},
		{"stale", config, false, []step{{put1, has1}, {patch2, has12}, {get, has1}}, porcupine.Illegal},
		{"refused, and it has happened", config, false, []step{{put1, has1}, {patch2If1, changed}, {get, has12}}, porcupine.Illegal},
		{"nobody knows, and it has happened", config, false, []step{{put1, has1}, {patch2, unknown}, {get, has12}}, porcupine.Ok},
		{"nobody knows, and it has not", config, false, []step{{put1, has1}, {patch2, unknown}, {get, has1}}, porcupine.Ok},
		{"changed with its ETag kept", config, false, []step{{put1, has1}, {patch2, outcome{status: 200, mapping: multipliers{1, 2}, etag: "1"}}}, porcupine.Illegal},
	} {
		t.Run(c.of+", "+c.name, func(t *testing.T) {
			history := make([]porcupine.Operation, len(c.steps))
			for i, s := range c.steps {
				history[i] = porcupine.Operation{ClientId: i, Input: s.in, Output: s.out, Call: int64(10 * i), Return: int64(10*i + 5)}
				if c.atOnce {
					history[i].Return = 1000
				}
				if s.out == unknown {
					history[i].Return = math.MaxInt64
				}
			}
			check := func() porcupine.CheckResult { return porcupine.CheckOperationsTimeout(modelOf(c.of), history, 0) }
			if got := check(); got != c.want {
				t.Fatalf("%s, want %s", got, c.want)
			}
			if c.atOnce || c.want != porcupine.Ok {
				return
			}
			for i := range history[1:] { // two results swapped
				a, b := &history[i], &history[i+1]
				if a.Output == b.Output || a.Output == unknown || b.Output == unknown {
					continue
				}
				a.Output, b.Output = b.Output, a.Output
				if got := check(); got != porcupine.Illegal {
					t.Errorf("with the results of %d and %d swapped: %s", i, i+1, got)
				}
				a.Output, b.Output = b.Output, a.Output
			}
		})
	}
}
