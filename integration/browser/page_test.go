package browser

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// writeImages names the variable that has the test write docs/images.
const writeImages = "SHIMTRACE_WRITE_IMAGES"

// TestPage uses the page of a captured pod as a person does.
func TestPage(t *testing.T) {
	need(t)
	b := open(t, page(t, storytest.Another(storytest.Captured(storytest.Pods[0]), 1)), 1360, 780)

	if title := eval[string](b, `document.title`); !strings.Contains(title, "web-1") {
		t.Errorf("the title is %q", title)
	}
	if head := eval[string](b, `document.getElementById("head").textContent`); !strings.Contains(head, "critical path") || !strings.Contains(head, "guest kernel") {
		t.Errorf("the head says %q", head)
	}

	if causes := eval[int](b, `document.querySelectorAll("#findings details").length`); causes == 0 {
		t.Error("no cause is named")
	}

	// Zoom: by key, wheel and dragging, about the pointer, and back.
	whole := b.shown()
	_, before := b.bar("sandbox start")
	b.press("+")
	if _, now := b.bar("sandbox start"); now <= before {
		t.Errorf("zoomed in, the first bar is %.0f pixels wide, was %.0f", now, before)
	}
	b.wheel(900, 400, -400)
	closer := b.shown()
	b.do(chromedp.DragAndDropXY(700, 400, 900, 400, 4))
	if now := b.shown(); now == closer || now == whole {
		t.Errorf("dragging shows %s, was %s", now, closer)
	}
	b.press("s")
	if now := b.shown(); now != whole {
		t.Errorf("back at the start it shows %s, was %s", now, whole)
	}
	b.press("0")
	if now := b.shown(); now == whole {
		t.Error("all is no more than the start")
	}
	b.press("s")

	// Click: the details.
	b.click(`.row[data-name="waitVM"] .name b`)
	details := eval[string](b, `document.getElementById("details").textContent`)
	for _, want := range []string{"waitVM", "kata-runtime", "on the critical path", "attributes"} {
		if !strings.Contains(details, want) {
			t.Errorf("the details lack %q: %s", want, details)
		}
	}

	// Search: folded spans are found, opened and selected.
	b.search("ttrpc.createsandbox")
	if got := eval[string](b, `document.getElementById("matches").textContent`); !strings.Contains(got, "span") {
		t.Errorf("matches: %q", got)
	}
	b.press(kb.Enter)
	if got := eval[string](b, `document.querySelector('.row[aria-selected="true"]')?.textContent ?? ""`); !strings.Contains(got, "ttrpc.CreateSandbox") {
		t.Errorf("selected: %q", got)
	}
	b.press(kb.Escape)

	// Only the critical path; only failures, of which there are none.
	all := eval[int](b, `document.querySelectorAll(".row").length`)
	b.press("c")
	if path := eval[int](b, `[...document.querySelectorAll(".row")].filter((r) => r.querySelector(".toggle").textContent === "" && !r.querySelector(".path")).length`); path > 0 {
		t.Errorf("%d rows without anything below are not on the critical path", path)
	}
	b.press("c")
	if now := eval[int](b, `document.querySelectorAll(".row").length`); now != all {
		t.Errorf("%d rows in sight, were %d", now, all)
	}

	// Keys move, fold and open.
	b.press(kb.Home)
	b.press(kb.ArrowDown)
	if got := eval[string](b, `document.querySelector('.row[aria-selected="true"]').dataset.name`); !strings.HasSuffix(got, "/Create") {
		t.Errorf("the second row is %s", got)
	}
	b.press(kb.ArrowLeft)
	if got := eval[string](b, `document.querySelector('.row[aria-selected="true"]').getAttribute("aria-expanded")`); got != "false" {
		t.Error("the left arrow did not fold the row")
	}
	b.press(kb.ArrowRight)

	// Light and dark, as the system is and as asked for.
	paper := func() string { return eval[string](b, `getComputedStyle(document.body).backgroundColor`) }
	light := paper()
	b.dark(true)
	if paper() == light {
		t.Error("the page is as light in the dark")
	}
	b.press("t") // light
	if paper() != light {
		t.Error("the page does not become light")
	}
	b.press("t") // dark
	b.press("t") // as the system
	picture(b, "page-dark.png")
	b.dark(false)
	b.click(`.row[data-name="connect"] .name b`)
	picture(b, "page.png")
	b.clean()
}

// picture takes a picture of the page, and writes it if the environment says so.
func picture(b *tab, name string) {
	b.t.Helper()
	png := run(b, chromedp.CaptureScreenshot())
	if len(png) < 10_000 {
		b.t.Errorf("%s has %d bytes: an empty page?", name, len(png))
	}
	dir := os.Getenv(writeImages)
	if dir == "" {
		return
	}
	if err := os.WriteFile(dir+"/"+name, png, 0o644); err != nil {
		b.t.Error(err)
	}
}

// TestSmallWindow: in a small window the page scrolls to the span that was found, its
// details are in sight, and nothing is wider than the window.
func TestSmallWindow(t *testing.T) {
	need(t)
	for _, size := range [][2]int{{480, 700}, {1000, 400}} {
		b := open(t, page(t, storytest.Another(storytest.Captured(storytest.Pods[0]), 1)), size[0], size[1])
		b.search("ttrpc.createsandbox")
		b.press(kb.Enter)
		for _, selector := range []string{`.row[aria-selected="true"] .name b`, `#details h2`} {
			seen := eval[bool](b, fmt.Sprintf(`(() => {
				const e = document.querySelector(%q), r = e.getBoundingClientRect();
				return e.contains(document.elementFromPoint(r.left + 2, r.top + r.height / 2));
			})()`, selector))
			if !seen {
				t.Errorf("at %v, %s is not in sight", size, selector)
			}
		}
		if wide := eval[int](b, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
			t.Errorf("at %v, the page is %d pixels too wide", size, wide)
		}
		picture(b, fmt.Sprintf("small-%d.png", size[0]))
		b.clean()
	}
}

// TestManySpans: the page of a story of ten thousand spans has only the rows in sight,
// and follows every key.
func TestManySpans(t *testing.T) {
	need(t)
	const count = 10_000
	s := &storytest.Script{}
	shim, agent := storytest.Resource("containerd-shim-kata-v2"), storytest.Resource(names.AgentScope)
	s.Span(shim, "s", "root", "", names.SandboxStart, 0, time.Minute)
	for i := range count - 1 {
		parent := "root"
		if i >= 20 {
			parent = fmt.Sprint(i / 5)
		}
		at := time.Duration(i%5000) * 12 * time.Millisecond
		s.Span(agent, "s", fmt.Sprint(i), parent, fmt.Sprintf("work %d", i), at, time.Duration(i%97)*time.Millisecond,
			storytest.With(storytest.Attr("code.filepath", fmt.Sprintf("src/file-%d.rs", i)), storytest.Attr("code.namespace", "agent")))
	}
	began := time.Now()
	b := open(t, page(t, &tracepb.TracesData{ResourceSpans: s.Spans}), 1280, 760)
	loaded := time.Since(began)
	b.press("x")
	if got := eval[string](b, `document.getElementById("axisnames").textContent`); !strings.HasPrefix(got, fmt.Sprintf("%d of %d spans", count, count)) {
		t.Errorf("all open: %s", got)
	}
	if rows := eval[int](b, `document.querySelectorAll(".row").length`); rows > 200 {
		t.Errorf("%d rows are in the document", rows)
	}
	b.search("file-9876.rs")
	b.press(kb.Enter)
	if got := eval[string](b, `document.querySelector('.row[aria-selected="true"]').dataset.name`); got != "work 9876" {
		t.Errorf("found %q", got)
	}
	b.press(kb.Escape)
	frames := eval[float64](b, `(async () => {
		const began = performance.now();
		for (let i = 0; i < 20; i++) {
			document.getElementById(i % 2 ? "in" : "out").click();
			await new Promise(requestAnimationFrame);
		}
		return (performance.now() - began) / 20;
	})()`)
	t.Logf("written, loaded and drawn in %v; a frame takes %.1f ms", loaded.Round(time.Millisecond), frames)
	b.clean()
}

// TestHostile: names that a guest chose run no script, and look like what they are.
func TestHostile(t *testing.T) {
	need(t)
	s := &storytest.Script{}
	evil := `</script><script>document.title="taken"</script><img src=x onerror='document.title="taken"'>` + "\u202e\x1b[2J"
	res := storytest.Resource("containerd-shim-runc-v2")
	s.Span(res, "s", "root", "", names.SandboxStart, 0, time.Second)
	s.Span(res, "s", "a", "root", evil, 0, time.Second, storytest.With(storytest.Attr(evil, evil)), storytest.Event(evil, 0), storytest.Failed(evil, evil))
	b := open(t, page(t, &tracepb.TracesData{ResourceSpans: s.Spans}), 1280, 760)
	b.click(`.row.failed .name`)
	if got := eval[string](b, `document.getElementById("details").textContent`); !strings.Contains(got, `<img src=x`) {
		t.Errorf("the details: %q", got)
	}
	if n := eval[int](b, `document.querySelectorAll("img, script:not([type])").length`); n > 0 {
		t.Errorf("%d elements are not the page's", n)
	}
	if title := eval[string](b, `document.title`); strings.Contains(title, "taken") {
		t.Errorf("the title is %q", title)
	}
	// The policy refuses what is not the page's own, however it gets there.
	eval[any](b, `(() => { const s = document.createElement("script"); s.textContent = 'document.title = "taken"'; document.body.append(s); return 0; })()`)
	if title := eval[string](b, `document.title`); strings.Contains(title, "taken") {
		t.Error("the policy lets another script run")
	}
}
