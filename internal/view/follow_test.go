package view

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

// output is what a command has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.more <- struct{}{}:
	default:
	}
	return o.text.Write(b)
}

// wait waits until the output has a text.
func (o *output) wait(t *testing.T, text string) {
	t.Helper()
	late := time.After(time.Minute)
	for {
		o.mu.Lock()
		got := o.text.String()
		o.mu.Unlock()
		if strings.Contains(got, text) {
			return
		}
		select {
		case <-o.more:
		case <-late:
			t.Fatalf("no %q in %q", text, got)
		}
	}
}

// following is a journal that is followed, with a sandbox in it that has ended before.
type following struct {
	t       *testing.T
	journal *journal.Journal
	reader  *Reader
	out     *output
	ended   chan error
	stop    context.CancelFunc
}

// follow follows what the query means. before are spans that are in the journal already.
func follow(t *testing.T, query string, f Filter, height int, before ...func(*storytest.Script)) *following {
	t.Helper()
	j, err := journal.Open(t.TempDir(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	w := &following{t: t, journal: j, out: &output{more: make(chan struct{}, 1)}, ended: make(chan error, 1)}
	old := storytest.Another(storytest.Captured(storytest.Pods[0]), 7)
	if err := journaltest.Append(j, old.ResourceSpans); err != nil {
		t.Fatal(err)
	}
	for _, change := range before {
		w.arrive(change)
	}
	ctx, stop := context.WithCancel(t.Context())
	w.stop = stop
	t.Cleanup(stop)
	w.reader = &Reader{Dir: j.Dir(), Out: w.out, Warn: func(format string, args ...any) { fmt.Fprintf(w.out, format+"\n", args...) }}
	go func() {
		w.ended <- w.reader.Follow(ctx, query, f, FollowOptions{Height: height, Every: time.Millisecond, Draw: waterfall.Options{Width: 80}})
	}()
	return w
}

// arrive appends some of the sandbox's spans to the journal.
func (w *following) arrive(change func(*storytest.Script)) {
	w.t.Helper()
	s := &storytest.Script{}
	change(s)
	if err := journaltest.Append(w.journal, s.Spans); err != nil {
		w.t.Fatal(err)
	}
}

func (w *following) end() string {
	w.t.Helper()
	select {
	case err := <-w.ended:
		if err != nil {
			w.t.Fatal(err)
		}
	case <-time.After(time.Minute):
		w.t.Fatal("it follows for ever")
	}
	return w.out.text.String()
}

var shim = storytest.Resource("containerd-shim-runc-v2")

// another is the resource of another sandbox's shim, of no pod.
func another(sandbox string) *resourcepb.Resource {
	return &resourcepb.Resource{Attributes: append(slices.Clone(shim.Attributes[:1]), storytest.Attr(names.Sandbox, sandbox))}
}

// TestFollowLines: without a terminal, each span of the next sandbox has one line, and
// the command ends with the sandbox.
func TestFollowLines(t *testing.T) {
	w := follow(t, "", Filter{}, 0)
	w.out.wait(t, "waiting for")
	w.arrive(func(s *storytest.Script) { // of a sandbox that has been there
		s.Span(another("older"), "older", "exec", "", storytest.Task+"Exec", 0, time.Millisecond)
	})
	w.arrive(func(s *storytest.Script) {
		s.Span(shim, "s", "shim", "root", names.ShimStart, 0, 20*time.Millisecond)
		s.Span(shim, "s", "create", "root", storytest.Task+"Create", 0, 50*time.Millisecond)
	})
	w.out.wait(t, "50.0ms  Task/Create")
	w.arrive(func(s *storytest.Script) { // one of its containers goes, not the sandbox
		s.Span(shim, "s", "app", "root", names.ShimDelete, 0, time.Millisecond, storytest.With(storytest.Attr(names.Container, "app")))
	})
	w.arrive(func(s *storytest.Script) {
		s.Span(shim, "s", "fail", "root", storytest.Task+"Start", 60*time.Millisecond, time.Millisecond, storytest.Failed("NOT_FOUND", "no\x1b[2J such"))
		s.Span(shim, "s", "root", "", names.SandboxStart, 0, 100*time.Millisecond)
	})
	w.out.wait(t, "✗ NOT_FOUND no␛[2J such")
	w.arrive(func(s *storytest.Script) {
		s.Span(shim, "s", "delete", "root", names.ShimDelete, time.Second, time.Millisecond)
	})
	got := w.end()
	if n := strings.Count(got, "Task/Create"); n != 1 {
		t.Errorf("%d lines of one span:\n%s", n, got)
	}
	if strings.Contains(got, "waitVM") || strings.Contains(got, "Task/Exec") || strings.ContainsRune(got, '\x1b') {
		t.Errorf("another sandbox's span, or an escape sequence:\n%q", got)
	}
}

// TestFollowScreen: on a terminal the picture is drawn again, and fits the height until
// the sandbox is over.
func TestFollowScreen(t *testing.T) {
	const height = 20
	w := follow(t, "web-0", Filter{Pod: "web-*"}, height)
	w.out.wait(t, "waiting for a sandbox called")
	w.arrive(func(s *storytest.Script) {
		s.Span(shim, "s", "shim", "root", names.ShimStart, 0, 20*time.Millisecond)
		for i := range 40 {
			s.Span(shim, "s", strings.Repeat("c", i+1), "root", storytest.Task+"State", time.Duration(i)*time.Millisecond, 50*time.Millisecond)
		}
	})
	w.out.wait(t, "Task/State")
	w.arrive(func(s *storytest.Script) {
		s.Span(shim, "s", "root", "", names.SandboxStart, 0, 100*time.Millisecond)
		s.Span(shim, "s", "delete", "root", names.ShimDelete, time.Second, time.Millisecond)
	})
	got := w.end()
	screens := strings.Split(got, "\x1b[H")
	if len(screens) < 3 {
		t.Fatalf("%d screens", len(screens))
	}
	for i, s := range screens[1 : len(screens)-1] {
		if n := strings.Count(s, "\n"); n > height {
			t.Errorf("screen %d has %d lines", i, n)
		}
	}
	if last := screens[len(screens)-1]; strings.Count(last, "Task/State") < 40 {
		t.Errorf("the last picture is not whole:\n%s", last)
	}
}

// TestFollowNamed: a sandbox that is there is shown at once; ctx ends the command.
func TestFollowNamed(t *testing.T) {
	w := follow(t, "web-7", Filter{}, 0)
	w.out.wait(t, "waitVM")
	w.stop()
	w.end()
}

// TestFollowReadsOnce: a record is read when it arrives. What that takes does not grow with
// what has arrived before, neither while a sandbox is awaited nor once it is there.
func TestFollowReadsOnce(t *testing.T) {
	const records = 60
	for _, query := range []string{"", "web-0"} {
		w := follow(t, query, Filter{Pod: "web-0"}, 0)
		w.out.wait(t, "waiting for")
		for i := range records {
			w.arrive(func(s *storytest.Script) {
				s.Span(another("other"), "other", fmt.Sprint(i), "", names.ShimStart, 0, time.Millisecond)
			})
		}
		for i := range records {
			w.arrive(func(s *storytest.Script) {
				s.Span(shim, "s", "shim", "root", names.ShimStart, 0, time.Millisecond)
				s.Span(shim, "s", fmt.Sprint("call", i), "root", fmt.Sprintf("call-%d.", i), 0, time.Millisecond)
			})
			w.out.wait(t, fmt.Sprintf("call-%d.", i)) // it has been looked at
		}
		w.stop()
		w.end()
		// Once to find the sandbox, once for the story, once for its picture.
		if most := 3*2*records + 3; w.reader.decoded > most {
			t.Errorf("%q: %d records were decoded for %d that arrived, want at most %d", query, w.reader.decoded, 2*records, most)
		}
	}
}

// TestFollowNamedLate: the spans of a sandbox that has begun, and is named later, are all
// there.
func TestFollowNamedLate(t *testing.T) {
	pod := another("late")
	w := follow(t, "web-9", Filter{}, 0, func(s *storytest.Script) {
		s.Span(pod, "s", "shim", "root", names.ShimStart, 0, 20*time.Millisecond)
	})
	w.out.wait(t, "waiting for a sandbox called web-9")
	w.arrive(func(s *storytest.Script) {
		s.Span(pod, "s", "create", "root", storytest.Task+"Create", 0, 50*time.Millisecond)
	})
	named := another("late")
	named.Attributes = append(named.Attributes, storytest.Attr(names.Pod, "web-9"))
	w.arrive(func(s *storytest.Script) {
		s.Span(named, "s", "start", "root", storytest.Task+"Start", 60*time.Millisecond, time.Millisecond)
		s.Span(named, "s", "delete", "root", names.ShimDelete, time.Second, time.Millisecond)
	})
	got := w.end()
	for _, want := range []string{names.ShimStart, "Task/Create", "Task/Start"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// TestFollowEnded: what has ended is not followed, but the next one of that name.
func TestFollowEnded(t *testing.T) {
	run := func(run string) *resourcepb.Resource {
		return storytest.Resource("containerd-shim-runc-v2", storytest.Attr(names.Run, run))
	}
	w := follow(t, "web-0", Filter{}, 0, func(s *storytest.Script) {
		s.Span(run("1"), "s", "root", "", names.SandboxStart, 0, 100*time.Millisecond)
		s.Span(run("1"), "s", "delete", "root", names.ShimDelete, time.Second, time.Millisecond)
	})
	w.out.wait(t, "waiting for the next one")
	w.arrive(func(s *storytest.Script) {
		s.Span(run("1"), "s", "late", "root", "told too late", time.Second, time.Millisecond)
	})
	w.arrive(func(s *storytest.Script) {
		s.Span(run("2"), "s2", "again", "", names.SandboxStart, time.Minute, 100*time.Millisecond)
		s.Span(run("2"), "s2", "gone", "again", names.ShimDelete, time.Minute+time.Second, time.Millisecond)
	})
	if got := w.end(); strings.Contains(got, "told too late") || !strings.Contains(got, "100ms  "+names.SandboxStart) {
		t.Errorf("it is not the next one:\n%s", got)
	}
}

// TestFollowAwaits: what is kept while a sandbox is awaited has a bound.
func TestFollowAwaits(t *testing.T) {
	w := &follower{}
	for i := range 100 {
		w.keep(journal.Record{Payload: make([]byte, 1<<20)})
		total := 0
		for _, rec := range w.awaited {
			total += len(rec.Payload)
		}
		if total != w.bytes || total > maxAwaited || i > 0 && total == 0 {
			t.Fatalf("%d bytes, counted %d", total, w.bytes)
		}
	}
}

func TestFitHeight(t *testing.T) {
	lines := strings.Split(strings.Repeat("x\n", 99)+"last", "\n")
	for _, height := range []int{1, 2, 5, 24, 99, 100, 200} {
		got := fitHeight(lines, height)
		if len(got) > max(height, 1) || height > 2 && got[len(got)-1] != "last" {
			t.Errorf("%d: %q", height, got)
		}
	}
}
