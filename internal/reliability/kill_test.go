package reliability

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/seedtest"
)

// victims are the processes that a kill -9 hits. Both are killed when a machine runs out of memory;
// shells and CI kill the process group.
var victims = []struct {
	name string
	kill func(server, database int) error
}{
	{"the server", func(server, _ int) error { return syscall.Kill(server, syscall.SIGKILL) }},
	{"the server's process group", func(server, _ int) error { return syscall.Kill(-server, syscall.SIGKILL) }},
	{"the database", func(_, database int) error { return syscall.Kill(database, syscall.SIGKILL) }},
	{"the server and the database", func(server, database int) error {
		if err := syscall.Kill(server, syscall.SIGKILL); err != nil {
			return err
		}
		return syscall.Kill(database, syscall.SIGKILL)
	}},
	{"the database and the server", func(server, database int) error {
		if err := syscall.Kill(database, syscall.SIGKILL); err != nil {
			return err
		}
		return syscall.Kill(server, syscall.SIGKILL)
	}},
}

// `marketmeter serve --sample`, which is `make run`, and without the sample: each victim is killed
// at a random moment under load, and the server once more during its start. It starts again without
// help, over the same data and at the same address, and all acknowledged data exists and is
// complete.
func TestKill_LosesNothingAcknowledged(t *testing.T) {
	programtest.Long(t)
	t.Parallel()
	r := seedtest.Random(t)
	order := r.Perm(len(victims)) // each is used by at least one of the two
	for _, test := range []struct {
		name  string
		args  []string
		from  int // in order
		kills int // at least
	}{{"as make run", []string{"--sample"}, 0, 2}, {"without the sample", nil, 2, len(victims) - 2}} {
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		t.Run(test.name, func(t *testing.T) {
			args := test.args
			t.Parallel()
			i := install(t, "ADDR="+freeAddress(t), "SANDBOX_ADDR=127.0.0.1:0")
			var h history
			kills, demo, orphan := 0, "", func() bool { return false }
			for deadline := seedtest.Until(3 * time.Second); kills < test.kills || time.Now().Before(deadline); kills++ {
				victim := victims[order[(test.from+kills)%len(order)]]
				i.killOnTheWayUp(t, r, args)
				server := i.serve(t, args...)
				server.ready(t)
				database := databaseOver(t, filepath.Join(i.dir, ".local", "dynamodb"))
				if orphan() {
					t.Error("the database of the server that was killed still runs, beside the new one")
				}
				if args != nil {
					demo = i.wantSample(t, server.url, demo)
				}
				if kills == 0 {
					h.begin(t, i)
				}
				h.verify(t, server.url)
				load := h.load(t.Context(), i, server.url, r)
				load.await(t, 10+r.IntN(70)) // whatever else is in progress then
				if err := victim.kill(server.Process.Pid, database); err != nil {
					t.Fatal(err)
				}
				load.end(t)
				server.stop() // after a kill of the database alone, as the server's message says
				orphan = func() bool { return runsOver(database, i.dir) }
				t.Logf("killed %s; so far %s", victim.name, &h)
				if t.Failed() {
					return
				}
			}
			server := i.serve(t, args...)
			server.ready(t)
			h.verify(t, server.url)
			if args != nil {
				i.wantSample(t, server.url, demo)
			}
		})
	}
}

// freeAddress is an unused address that stays free while a killed server is down: its port is below
// those that Linux and macOS assign to listeners on any port and to outgoing connections.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		// Not from the test's seed: two runs with the same seed at the same time need two ports.
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("a hundred ports are taken")
	return ""
}

func rand0(r *rand.Rand, below time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(below)))
}

// killOnTheWayUp starts the server and kills it before or after it is ready, at a random moment.
func (i *installation) killOnTheWayUp(t *testing.T, r *rand.Rand, args []string) {
	t.Helper()
	server := i.serve(t, args...)
	time.Sleep(rand0(r, 2*time.Second))
	select {
	case <-server.ended:
		t.Fatalf("it has ended by itself: %s", server.errors())
	default:
	}
	_ = server.Process.Kill()
	<-server.ended
}

// runsOver reports whether the process exists, with the folder in its command line.
func runsOver(pid int, folder string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(line), folder)
}

// wantSample checks that the sample data exists, complete, for the key in the env file, and that
// this key is the one from before, if any.
func (i *installation) wantSample(t *testing.T, at, before string) (key string) {
	t.Helper()
	env, err := os.ReadFile(filepath.Join(i.dir, ".local", "env"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(env)) {
		if value, ok := strings.CutPrefix(line, "MARKETMETER_KEY="); ok {
			key = strings.TrimSpace(value)
		}
	}
	if key == "" || (before != "" && key != before) {
		t.Errorf("the demo key is %q, and was %q", key, before)
	}
	groups, err := listAll(t.Context(), at, "demo", key, "startDate=2020-01-01")
	const imported, reported = 2500, 24 // the second once a day
	if days := (len(groups) - imported) / reported; err != nil || days < 1 || len(groups) != imported+days*reported {
		t.Errorf("the sample data has %d groups, %v", len(groups), err)
	}
	return key
}

// history is what clients have requested in organization acme, and what of it was acknowledged.
type history struct {
	mu      sync.Mutex
	groups  map[string]*groupHistory
	mapped  map[string]bool // keys that were put into the config's mapping; true if that was acknowledged
	etags   map[string]bool // of the acknowledged changes
	key     string          // used by the clients
	keys    []string        // keys that were made, including that one
	pages   int
	refused int // 503, or no response
}

type groupHistory struct {
	sent           map[string]any
	stored         bool // its import was acknowledged
	asked, deleted bool // its deletion was requested, and acknowledged
}

func (h *history) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	stored, deleted, mapped := 0, 0, 0
	for _, g := range h.groups {
		stored += count(g.stored)
		deleted += count(g.deleted)
	}
	for _, acknowledged := range h.mapped {
		mapped += count(acknowledged)
	}
	return fmt.Sprintf("acknowledged: %d groups imported, %d deleted, %d changes of the config, %d keys, %d pages; %d requests without a good response",
		stored, deleted, mapped, len(h.keys), h.pages, h.refused)
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (h *history) begin(t *testing.T, i *installation) {
	t.Helper()
	h.groups, h.mapped, h.etags = map[string]*groupHistory{}, map[string]bool{}, map[string]bool{}
	key, err := i.newKey(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	h.key, h.keys = key, []string{key}
}

// running is load that continues until it is ended.
type running struct {
	stop         context.CancelFunc
	all          sync.WaitGroup
	mu           sync.Mutex
	wrong        []string
	acknowledged chan struct{} // one for each effect
}

// await waits until that many effects are acknowledged.
func (l *running) await(t *testing.T, effects int) {
	t.Helper()
	for limit := time.After(patience); effects > 0; effects-- {
		select {
		case <-l.acknowledged:
		case <-limit:
			t.Fatal("too little is acknowledged in time")
		}
	}
}

func (l *running) count(effects int) {
	for range effects {
		select {
		case l.acknowledged <- struct{}{}:
		default: // nothing waits for that many
		}
	}
}

func (l *running) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.all.Wait()
	for _, wrong := range l.wrong {
		t.Error(wrong)
	}
}

func (l *running) fail(format string, a ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, a...))
}

// load has clients delete groups, change the config and page through lists, and operators import
// groups and make keys, all at once.
func (h *history) load(ctx context.Context, i *installation, at string, r *rand.Rand) *running {
	ctx, stop := context.WithCancel(ctx)
	l := &running{stop: stop, acknowledged: make(chan struct{}, 1000)}
	repeat := func(each func(*rand.Rand)) {
		own := rand.New(rand.NewPCG(r.Uint64(), 0))
		l.all.Go(func() {
			for ctx.Err() == nil {
				each(own)
			}
		})
	}
	repeat(func(r *rand.Rand) { h.importSome(ctx, i, l, r) })
	l.all.Go(func() {
		if key, err := i.newKey(ctx, "acme"); err == nil {
			h.mu.Lock()
			h.keys = append(h.keys, key)
			h.mu.Unlock()
			l.count(1)
		}
	})
	for range 2 {
		repeat(func(r *rand.Rand) { h.deleteOne(ctx, at, l, r) })
		repeat(func(r *rand.Rand) { h.changeConfig(ctx, at, l, r) })
	}
	repeat(func(*rand.Rand) {
		groups, err := listAll(ctx, at, "acme", h.key, "limit=100")
		h.mu.Lock()
		defer h.mu.Unlock()
		h.pages += len(groups)/100 + 1
		h.refused += count(err != nil)
	})
	return l
}

func (h *history) importSome(ctx context.Context, i *installation, l *running, r *rand.Rand) {
	const some = 10
	var lines bytes.Buffer
	now := time.Now().UTC()
	sent := map[string]*groupHistory{}
	for n := range some {
		created := now.Add(-rand0(r, 240*time.Hour)).Format("2006-01-02T15:04:05.000Z")
		group := map[string]any{
			"id": fmt.Sprintf("%016x-%d", r.Uint64(), n), "organizationID": "acme", "partner": "AWS", "status": "CREATED",
			"buyerID": fmt.Sprintf("buyer-%d", r.IntN(5)), "entitlementID": fmt.Sprintf("ent-%d", r.IntN(5)), "serialID": float64(n + 1),
			"records": map[string]any{"cpu": float64(r.IntN(1000)) / 4}, "creationTime": created, "lastUpdateTime": created,
			"metaInfo": map[string]any{"source": "API", "stripeInvoiceID": strings.Repeat("x", r.IntN(2000))},
		}
		line, err := json.Marshal(group)
		if err != nil {
			l.fail("%v", err)
			return
		}
		lines.Write(append(line, '\n'))
		sent[group["id"].(string)] = &groupHistory{sent: group}
	}
	h.mu.Lock()
	maps.Copy(h.groups, sent)
	h.mu.Unlock()
	cmd := i.command(ctx, "import", "--org", "acme", "-")
	cmd.Stdin = &lines
	printed, err := cmd.Output()
	if err != nil {
		return // canceled: whatever it stored is complete
	}
	if want := fmt.Sprintf("imported %d, skipped 0, refused 0\n", some); string(printed) != want {
		l.fail("an import reports %q and not %q", printed, want)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range sent {
		g.stored = true
	}
	l.count(some)
}

func (h *history) deleteOne(ctx context.Context, at string, l *running, r *rand.Rand) {
	h.mu.Lock()
	var ids []string
	for id, g := range h.groups {
		if g.stored && !g.asked {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		h.mu.Unlock()
		select { // until an import has ended
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
		return
	}
	slices.Sort(ids)
	id := ids[r.IntN(len(ids))]
	h.groups[id].asked = true
	h.mu.Unlock()
	h.note(ctx, l, "DELETE", at+"/org/acme/usageRecordGroup/"+id, "", func(httpResponse) { h.groups[id].deleted = true })
}

func (h *history) changeConfig(ctx context.Context, at string, l *running, r *rand.Rand) {
	key := fmt.Sprintf("k%x", r.Uint64())
	h.mu.Lock()
	h.mapped[key] = false
	h.mu.Unlock()
	body := `{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMapping":{"` + key + `":{"dimensionKey":"d","convertionMultiplier":1}}}]}`
	h.note(ctx, l, "PATCH", at+"/org/acme/usageMeteringConfigInfo", body, func(got httpResponse) {
		h.mapped[key] = true
		if etag := got.header.Get("ETag"); h.etags[etag] {
			l.fail("two changes of the config have the ETag %s", etag)
		} else {
			h.etags[etag] = true
		}
	})
}

// note sends a request and records its result: acknowledged, or 503, or no response.
func (h *history) note(ctx context.Context, l *running, method, url, body string, acknowledged func(httpResponse)) {
	got, err := send(ctx, http.DefaultClient, method, url, h.key, body)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil && got.status == http.StatusOK:
		acknowledged(got)
		l.count(1)
	case err == nil && !got.shed():
		l.fail("%s %s: %v", method, url, got)
	default:
		h.refused++
	}
}

// verify compares the stored data with what was acknowledged, and with what may also be stored
// without acknowledgment. After that, the data found counts as acknowledged.
func (h *history) verify(t *testing.T, at string) {
	t.Helper()
	key := h.key
	all, err := listAll(t.Context(), at, "acme", key, "")
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for id, g := range h.groups {
		stored, ok := all[id]
		if !ok {
			if g.stored {
				lost++
				t.Errorf("group %s was imported and does not exist", id)
			}
			delete(h.groups, id)
			continue
		}
		g.stored = true
		deleted := stored["status"] == "DELETED"
		if (deleted && !g.asked) || (!deleted && g.deleted) {
			lost++
			t.Errorf("group %s is %v; its deletion was requested: %v, and acknowledged: %v", id, stored["status"], g.asked, g.deleted)
		}
		g.asked, g.deleted = deleted, deleted
		for member, value := range g.sent {
			if deleted && (member == "status" || member == "lastUpdateTime") {
				continue
			}
			if got := stored[member]; !contains(got, value) {
				t.Errorf("group %s: %s is %v and was sent as %v", id, member, got, value)
			}
		}
	}
	for id := range all {
		if h.groups[id] == nil {
			t.Errorf("group %s exists and was never sent", id)
		}
	}
	// Each index holds the same as the table.
	for member, parameter := range map[string]string{"status": "status", "buyerID": "buyerId", "entitlementID": "entitlementId"} {
		values := map[string]int{}
		for _, g := range all {
			values[g[member].(string)]++
		}
		for value, want := range values {
			got, err := listAll(t.Context(), at, "acme", key, parameter+"="+url.QueryEscape(value))
			if err != nil || len(got) != want {
				t.Errorf("listed by %s=%s: %d groups, %v; want %d", parameter, value, len(got), err, want)
			}
		}
	}
	lost += h.verifyConfig(t, at)
	for n, key := range h.keys {
		if got, err := send(t.Context(), http.DefaultClient, "GET", at+"/org/acme/usageRecordGroup?limit=1", key, ""); err != nil || got.status != http.StatusOK {
			lost++
			t.Errorf("key %d of %d: %v, %v", n, len(h.keys), got, err)
		}
	}
	if lost > 0 {
		t.Errorf("%d acknowledged effects are lost", lost)
	}
}

func (h *history) verifyConfig(t *testing.T, at string) (lost int) {
	t.Helper()
	got, err := send(t.Context(), http.DefaultClient, "GET", at+"/org/acme/usageMeteringConfigInfo", h.key, "")
	var config struct {
		PartnerUsageMeteringConfigs []struct{ DimensionMapping map[string]any }
	}
	if err == nil {
		err = json.Unmarshal(got.body, &config)
	}
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("the config: %v, %v", got, err)
	}
	mapping := map[string]any{}
	for _, of := range config.PartnerUsageMeteringConfigs {
		maps.Copy(mapping, of.DimensionMapping)
	}
	for key, acknowledged := range h.mapped {
		if _, ok := mapping[key]; acknowledged && !ok {
			lost++
			t.Errorf("the change %s of the config was acknowledged and is lost", key)
		} else if !ok {
			delete(h.mapped, key)
		} else {
			h.mapped[key] = true
		}
	}
	for key := range mapping {
		if _, ok := h.mapped[key]; !ok {
			t.Errorf("%s of the config was never requested", key)
		}
	}
	etag, err := strconv.Unquote(got.header.Get("ETag"))
	if version, _, _ := strings.Cut(etag, "-"); err != nil || version != strconv.Itoa(len(mapping)) {
		t.Errorf("the config is version %q, %v, after %d changes", version, err, len(mapping))
	}
	return lost
}

// contains reports whether a value that was listed holds the one that was sent: objects may have
// more members.
func contains(got, sent any) bool {
	object, ok := sent.(map[string]any)
	if !ok {
		return got == sent
	}
	in, ok := got.(map[string]any)
	for member, value := range object {
		ok = ok && contains(in[member], value)
	}
	return ok
}

// listAll lists the organization's groups by cursor, and checks that each is listed once.
func listAll(ctx context.Context, at, org, key, query string) (map[string]map[string]any, error) {
	all := map[string]map[string]any{}
	for at += "/org/" + org + "/usageRecordGroup"; ; {
		got, err := send(ctx, http.DefaultClient, "GET", at+"?"+query, key, "")
		if err != nil {
			return all, err
		}
		var page struct{ UsageRecordGroups []map[string]any }
		if err := json.Unmarshal(got.body, &page); err != nil || got.status != http.StatusOK {
			return all, fmt.Errorf("%v: %w", got, err)
		}
		for _, g := range page.UsageRecordGroups {
			id, _ := g["id"].(string)
			if all[id] != nil {
				return all, fmt.Errorf("group %q is listed twice", id)
			}
			all[id] = g
		}
		link := got.header.Get("Link")
		if link == "" {
			return all, nil
		}
		next, ok := strings.CutPrefix(link, "<?")
		if query, _, _ = strings.Cut(next, ">"); !ok {
			return all, fmt.Errorf("the link is %s", link)
		}
	}
}
