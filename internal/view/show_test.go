package view

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/view/diff"
	"github.com/shimtrace/shimtrace/internal/view/stats"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

const ms = time.Millisecond

// journalOf returns a reader of a journal with the pods.
func journalOf(t *testing.T, pods ...[]*tracepb.ResourceSpans) (*Reader, *bytes.Buffer) {
	t.Helper()
	j, err := journal.Open(t.TempDir(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, spans := range pods {
		if err := journaltest.Append(j, spans); err != nil {
			t.Fatal(err)
		}
	}
	out := &bytes.Buffer{}
	return &Reader{Dir: j.Dir(), Out: out, Warn: t.Logf}, out
}

var app = storytest.With(storytest.Attr(names.Container, "app"), storytest.Attr(names.ContainerName, "app"))

// failed is a pod whose sandbox has started, but not its container.
func failed() []*tracepb.ResourceSpans {
	s := &storytest.Script{}
	s.Span(shim, "s", "root", "", names.SandboxStart, 0, 60*ms)
	s.Span(shim, "s", "start", "root", storytest.Task+"Start", 50*ms, 10*ms, storytest.With(storytest.Attr(names.Container, storytest.SandboxID)))
	s.Span(shim, "s", "create", "root", storytest.Task+"Create", 80*ms, 20*ms, app, storytest.Failed("UNKNOWN",
		`OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "/no/such": stat /no/such: no such file or directory`))
	return s.Spans
}

// starting is a pod whose start goes on.
func starting() []*tracepb.ResourceSpans {
	s := &storytest.Script{}
	s.Span(shim, "s", "shim", "root", names.ShimStart, 0, 20*ms)
	s.Span(shim, "s", "create", "root", storytest.Task+"Create", 30*ms, 50*ms)
	return s.Spans
}

// unsaid is a pod whose Start has been lost.
func unsaid() []*tracepb.ResourceSpans {
	s := &storytest.Script{}
	s.Span(shim, "s", "root", "", names.SandboxStart, 0, 60*ms)
	s.Span(shim, "s", "create", "root", storytest.Task+"Create", 30*ms, 20*ms)
	return s.Spans
}

// running is a pod whose start is no longer in the journal.
func running() []*tracepb.ResourceSpans {
	s := &storytest.Script{}
	s.Span(shim, "s", "exec", "root", storytest.Task+"Exec", 0, 20*ms, app)
	return s.Spans
}

// TestWhatBecameOfTheStart: show and explain say it, of a start that failed, goes on or is
// not in the journal any more, or not whole; stats count only those that went well, and
// diff says which did not.
func TestWhatBecameOfTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		pod                        []*tracepb.ResourceSpans
		show, explain, stats, diff string
	}{
		"failed":   {failed(), "Container app failed to start, after 100ms.\ncritical path", "Container app failed to start, after 100ms.\n", "0 starts, 1 failed or unfinished", "(failed to start)"},
		"starting": {starting(), "No container has started yet; so far 80.0ms.\ncritical path", "No container has started yet; so far 80.0ms.\n", "0 starts, 1 failed or unfinished", "(so far)"},
		"unsaid":   {unsaid(), "critical path", "The sandbox started within 60.0ms; the Start of its container is not recorded.\n", "1 start,", "runc  50.0ms"},
		"running":  {running(), "Task/Exec", "The spans tell of no start", "0 starts, 1 failed or unfinished", "(start not recorded)"},
	} {
		r, out := journalOf(t, c.pod)
		says := func(command, want string, err error) {
			if err != nil || !strings.Contains(out.String(), want) {
				t.Errorf("%s: %s does not say %q: %v\n%s", name, command, want, err, out)
			}
			out.Reset()
		}
		says("show", c.show, r.Show("", Filter{}, waterfall.Options{}))
		says("explain", c.explain, r.Explain("", 80, false))
		says("stats", c.stats, r.Stats(Filter{}, stats.Options{}, false))
		says("diff", c.diff, r.Diff("web-0", "web-0", Filter{}, diff.Options{}, false))
	}
}

// TestPicturesFit: no line is longer than the terminal is wide, and the head is whole.
func TestPicturesFit(t *testing.T) {
	for _, pod := range [][]*tracepb.ResourceSpans{
		storytest.Another(storytest.Captured(storytest.GoPod), 1).ResourceSpans,
		storytest.Another(storytest.Captured(storytest.RustPod), 1).ResourceSpans, failed(), starting(), running(),
	} {
		r, out := journalOf(t, pod)
		for _, width := range []int{40, 80, 120} {
			fits := func(command string, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(out.String()) {
					if n := waterfall.Width(strings.TrimSuffix(line, "\n")); n > width {
						t.Errorf("%s at %d: %d cells: %s", command, width, n, line)
					}
				}
				out.Reset()
			}
			for _, o := range []waterfall.Options{{}, {All: true}, {Verbose: true}} {
				o.Width = width
				err := r.Show("", Filter{}, o)
				if head, _, _ := strings.Cut(out.String(), "\n\n"); width >= 80 && strings.Contains(head, "…") {
					t.Errorf("at %d the head is cut:\n%s", width, head)
				}
				fits("show", err)
			}
			if r.Show("", Filter{Errors: true}, waterfall.Options{Width: width}) == nil {
				fits("show --errors", nil)
			}
			if width >= 80 {
				fits("list", r.List(Filter{}, 0, width, false))
			}
			fits("stats", r.Stats(Filter{}, stats.Options{Width: width}, false))
			fits("diff", r.Diff("", "", Filter{}, diff.Options{Width: width, Least: 1}, false))
		}
	}
}
