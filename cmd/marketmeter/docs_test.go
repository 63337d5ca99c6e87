package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// The page in a real browser: it renders, lists every operation, and trying one with the demo key
// returns 200. It sends requests to no other server, and its policy blocks nothing of the page. If
// SCREENSHOTS is set to a folder, the test saves pictures there.
func TestDocs_WorkInABrowser(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	p := begin(t, t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}, "serve", "--sample")
	url := p.ready(t)
	key := "mm_" + p.says(t, "  mm_")
	b := openBrowser(t)

	b.do(t, chromedp.Navigate(url+"/docs"), chromedp.WaitVisible(chromedp.CSS(".opblock-summary")))
	shown := show(t, b, chromedp.Evaluate[[]string](`[...document.querySelectorAll(".opblock")].map(o =>
		o.querySelector(".opblock-summary-method").innerText + " " + o.querySelector(".opblock-summary-path").getAttribute("data-path"))`))
	var routes []string
	for _, r := range httpapi.Operations() {
		routes = append(routes, r.Method+" "+r.Path)
	}
	slices.Sort(routes)
	slices.Sort(shown)
	if d := cmp.Diff(routes, shown); d != "" {
		t.Errorf("the page shows other operations than there are (-routes +shown):\n%s", d)
	}
	b.picture(t, "docs")

	// The page shows Execute first, and moves it down when it has resolved the parameters. A click
	// in between hits a parameter instead, so the test awaits the last parameter.
	const list = "#operations-Usage_record_groups-listUsageRecordGroups "
	b.do(t,
		chromedp.Click(chromedp.CSS(".auth-wrapper .authorize")),
		chromedp.WaitVisible(chromedp.CSS(".modal-ux .auth-container input")),
		chromedp.SendKeys(chromedp.CSS(".modal-ux .auth-container input"), "Key "+key),
		chromedp.Click(chromedp.CSS(".modal-ux .auth-btn-wrapper .authorize")),
		chromedp.Click(chromedp.CSS(".modal-ux .btn-done")),
		chromedp.Click(chromedp.CSS(list+".opblock-summary-control")),
		chromedp.WaitVisible(chromedp.CSS(list+`tr[data-param-name="orgId"] input`)),
		chromedp.WaitVisible(chromedp.CSS(list+".btn.execute")))
	server := show(t, b, chromedp.Value(chromedp.CSS(".servers select")))
	b.picture(t, "docs-list")
	b.do(t,
		chromedp.Click(chromedp.CSS(list+".btn.execute")),
		chromedp.WaitVisible(chromedp.CSS(list+".live-responses-table .response .response-col_status")))
	status := show(t, b, chromedp.Text(chromedp.CSS(list+".live-responses-table .response .response-col_status")))
	body := show(t, b, chromedp.Text(chromedp.CSS(list+".live-responses-table .response .response-col_description")))
	b.picture(t, "docs-tried")
	if !strings.HasPrefix(status, "200") || !strings.Contains(body, "usageRecordGroups") || server != "/" {
		t.Errorf("tried at the server %q, the list responds %s\n%.500s\nwant 200 and groups, from the page's own server", server, status, body)
	}

	requested, complaints := b.seen()
	if len(requested) < 5 {
		t.Errorf("the browser has requested no more than %q", requested)
	}
	for _, r := range requested {
		if !strings.HasPrefix(r, url+"/") && !strings.HasPrefix(r, "data:") {
			t.Errorf("the browser requested %s: the page must request nothing but from %s", r, url)
		}
	}
	for _, c := range complaints {
		t.Errorf("the browser complains: %s", c)
	}
}

// browser is a headless Chromium, with its requests and complaints.
type browser struct {
	context.Context
	mu                    sync.Mutex
	requested, complaints []string
}

func openBrowser(t *testing.T) *browser {
	t.Helper()
	file, err := exec.LookPath("chromium")
	if err != nil {
		programtest.Skip(t, "there is no chromium: scripts/chromium installs it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx,
		chromedp.ExecPath(file), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(1200, 1400))
	t.Cleanup(cancel)
	b := &browser{}
	b.Context, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if _, err := chromedp.Call(b.Context, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(b.Context, b.hear); err != nil {
		t.Fatal(err)
	}
	return b
}

// hear records an event.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requested = append(b.requested, e.Request.URL)
	case *network.EventLoadingFailed:
		b.complaints = append(b.complaints, "a request failed: "+e.ErrorText+" "+string(e.BlockedReason))
	case *log.EventEntryAdded: // includes a policy that blocks something of the page
		b.complaints = append(b.complaints, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, e.ExceptionDetails.Text)
	}
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	for _, action := range actions {
		show(t, b, action)
	}
}

func show[T any](t *testing.T, b *browser, action chromedp.Action[T]) T {
	t.Helper()
	result, err := chromedp.Run(b.Context, action)
	if err != nil {
		b.picture(t, "failed")
		t.Fatal(err)
	}
	return result
}

func (b *browser) seen() (requested, complaints []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.requested), slices.Clone(b.complaints)
}

// picture saves a picture of the whole page if SCREENSHOTS is set.
func (b *browser) picture(t *testing.T, name string) {
	t.Helper()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(b.Context, chromedp.FullScreenshot(100))
	if err != nil {
		t.Error(err)
		return
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
		t.Error(err)
	}
}
