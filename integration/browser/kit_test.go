package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

const (
	tool     = "../../bin/shimtrace"
	chromium = "chromium-headless-shell"
	// patience bounds each test against hangs.
	patience = 60 * time.Second
)

// tab is a page in a browser.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []string // addresses that the page asked for
	problems []string // exceptions, what the policy refused, dialogs
}

// need skips the test, or in CI fails it, if the machine lacks something.
func need(t *testing.T) {
	t.Helper()
	missing := ""
	if _, err := exec.LookPath(chromium); err != nil {
		missing = chromium + " (make deps)"
	} else if _, err := os.Stat(tool); err != nil {
		missing = "bin/shimtrace (make build)"
	}
	switch {
	case missing == "":
	case os.Getenv("CI") != "":
		t.Fatal("needs ", missing)
	default:
		t.Skip("needs ", missing)
	}
}

// page returns the file of the page that the tool writes for the latest of the pods.
func page(t *testing.T, pods ...*tracepb.TracesData) string {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(filepath.Join(dir, "journal"), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		if err := journaltest.Append(j, pod.ResourceSpans); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "page.html")
	cmd := exec.CommandContext(t.Context(), tool, "show", "--journal", j.Dir(), "--html", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// open loads a page in a new browser of the given size.
func open(t *testing.T, file string, width, height int) *tab {
	t.Helper()
	b := &tab{t: t}
	path, err := exec.LookPath(chromium)
	if err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WSURLReadTimeout(patience),
		chromedp.WindowSize(width, height), chromedp.UserDataDir(t.TempDir()))
	ctx, end := chromedp.NewExecAllocator(t.Context(), options...)
	ctx, closeTab := chromedp.NewContext(ctx, chromedp.WithListener(b.noteEvent))
	t.Cleanup(func() { closeTab(); end() })
	b.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // the first use's context is the browser's life
		t.Fatal(err)
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	b.do(chromedp.Navigate("file://"+file), chromedp.WaitVisible(chromedp.CSS("html[data-ready] .row")))
	return b
}

func (b *tab) noteEvent(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += ": " + e.ExceptionDetails.Exception.Description
		}
		b.problems = append(b.problems, text)
	case *log.EventEntryAdded:
		b.problems = append(b.problems, e.Entry.Text)
	}
}

// run returns the value of an action.
func run[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, stop := context.WithTimeout(b.ctx, patience)
	defer stop()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.t.Fatalf("%v; the page reported %q", err, b.problems)
	}
	return value
}

// do does things one after another.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	for _, step := range steps {
		run(b, step)
	}
}

// call sends a command to the browser.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) {
	b.t.Helper()
	run(b, func(ctx context.Context, target *chromedp.Target) (R, error) {
		return cdp.Call(ctx, target, command, params)
	})
}

// eval returns the value of an expression in the page, after its next frame.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	promise := fmt.Sprintf("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(%s))))", expression)
	return run(b, chromedp.Evaluate[T](promise, chromedp.EvalAwaitPromise))
}

// press presses keys.
func (b *tab) press(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// search goes to the search by its key, and types a text.
func (b *tab) search(text string) {
	b.t.Helper()
	b.press("/")
	// The protocol types the key as well, which the page has refused.
	eval[string](b, `document.activeElement.id === "search" ? document.activeElement.value = "" : "not there"`)
	b.press(text)
}

// click clicks on the first element that a selector means.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// dark has the system ask for dark colours, or for light ones.
func (b *tab) dark(on bool) {
	b.t.Helper()
	scheme := &emulation.MediaFeature{Name: "prefers-color-scheme", Value: "light"}
	if on {
		scheme.Value = "dark"
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{scheme}})
}

// wheel turns the wheel with Ctrl at a point; less than 0 is away from the person.
func (b *tab) wheel(x, y, by float64) {
	b.t.Helper()
	call(b, input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: input.DispatchMouseEventTypeMouseWheel, X: x, Y: y, DeltaX: 1e-3, DeltaY: by, Modifiers: int64(chromedp.ModifierCtrl)})
}

// shown returns the length of the time that is shown, as the page says it.
func (b *tab) shown() string {
	b.t.Helper()
	_, length, _ := strings.Cut(eval[string](b, `document.getElementById("axisnames").textContent`), " · ")
	return length
}

// bar returns the left end and the width in pixels of the bar of a span with that name.
func (b *tab) bar(name string) (left, width float64) {
	b.t.Helper()
	box := eval[[]float64](b, fmt.Sprintf(`(() => { const r = document.querySelector('.row[data-name=%q] .bar').getBoundingClientRect(); return [r.left, r.width]; })()`, name))
	return box[0], box[1]
}

// clean fails the test if the page asked for anything else than itself, or reported
// anything.
func (b *tab) clean() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, address := range b.requests {
		if !strings.HasPrefix(address, "file:///") || !strings.HasSuffix(address, "/page.html") {
			b.t.Errorf("the page asked for %s", address)
		}
	}
	if len(b.problems) > 0 {
		b.t.Errorf("the page reported %q", b.problems)
	}
}
