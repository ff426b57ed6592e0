package relay

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

var alice = telemetry.Turner{Name: "alice", UID: 1000}

// newDynamic is newWorld with tracing that is to be switched on.
func newDynamic(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, false)
	w.state.Dynamic, w.state.Trace.Sampled = true, false
	w.switcher = newSwitcher(w.sandbox, config.Default().Trace, "dynamic")
	if err := w.state.Write(w.statePath); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) on(length time.Duration) (changed bool) {
	w.t.Helper()
	changed, err := w.switcher.on(alice, length)
	if err != nil {
		w.t.Fatal(err)
	}
	return changed
}

// states are those beside the relay's socket and in the bundle.
func (w *world) states() (all []*state.State) {
	w.t.Helper()
	for _, path := range []string{w.statePath, filepath.Join(w.bundle, state.File)} {
		st, err := state.Read(path)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, st)
	}
	return all
}

// Two windows are two traces, each with a root and an end, and what is in none is
// not recorded.
func TestWindows(t *testing.T) {
	w := newDynamic(t)
	w.create(trace.SpanContext{})
	w.Answered(&middleware.Call{Method: "Start", ContainerID: "c1", End: t0.Add(60)})
	exit := func(exec string) {
		w.Answered(&middleware.Call{Method: "Wait", ContainerID: "c1", ExecID: exec, Exited: true, ExitedAt: time.Now(), End: time.Now()})
	}
	exit("before")
	if n := len(w.spans.Ended()); n != 0 {
		t.Errorf("%d spans while tracing is off", n)
	}
	var roots []trace.SpanContext
	for i, exec := range []string{"first", "second"} {
		if !w.on(0) || w.on(time.Hour) || w.on(0) {
			t.Error("it is on, or was, or was not")
		}
		exit(exec)
		for _, st := range w.states() {
			if root, recorded := st.Root(time.Now()); !recorded || !root.Equal(w.Root()) {
				t.Errorf("state %+v", st.Window)
			}
		}
		if !w.switcher.off(alice) || w.switcher.off(alice) {
			t.Error("it is off, or was, or was not")
		}
		exit("after " + exec)
		for _, st := range w.states() {
			if _, recorded := st.Root(time.Now()); recorded || st.Window == nil {
				t.Errorf("state %+v", st.Window)
			}
		}
		spans := w.spans.Ended()
		if len(spans) != 3*(i+1) {
			t.Fatalf("%d spans after window %d", len(spans), i)
		}
		root, exited, off := spans[3*i], spans[3*i+1], spans[3*i+2]
		if root.Name() != names.SwitchedOn || root.Parent().IsValid() || !root.SpanContext().Equal(w.Root().WithRemote(false)) {
			t.Errorf("%q, %v under %v", root.Name(), root.SpanContext(), root.Parent())
		}
		shimtest.Want(t, root.Attributes(), "user.name=alice", "user.id=1000")
		shimtest.Want(t, off.Attributes(), "user.name=alice", "user.id=1000", "shimtrace.switched_off.reason=command")
		for name, s := range map[string]sdktrace.ReadOnlySpan{names.ExecExited: exited, names.SwitchedOff: off} {
			if s.Name() != name || s.Parent().SpanID() != root.SpanContext().SpanID() || s.SpanContext().TraceID() != root.SpanContext().TraceID() {
				t.Errorf("%q under %v, want %q", s.Name(), s.Parent(), name)
			}
		}
		roots = append(roots, root.SpanContext())
	}
	if roots[0].TraceID() == roots[1].TraceID() {
		t.Error("two windows in one trace")
	}
	if n := len(w.spans.Named(names.SandboxStart)); n != 0 {
		t.Errorf("%d roots of the sandbox", n)
	}
}

// The root is exported before anything is recorded, or nothing is.
func TestNoTraceWithoutItsRoot(t *testing.T) {
	w := newDynamic(t)
	flushed := 0
	w.export = func(context.Context) error {
		flushed++
		if len(w.spans.Named(names.SwitchedOn)) != 1 || w.sandbox.On() {
			t.Errorf("at export: %d roots, on %v", len(w.spans.Named(names.SwitchedOn)), w.sandbox.On())
		}
		return nil
	}
	w.on(0)
	if flushed != 1 {
		t.Errorf("exported %d times", flushed)
	}

	w = newDynamic(t)
	w.export = func(context.Context) error { return errors.New("disk full") }
	if changed, err := w.switcher.on(alice, time.Hour); err == nil || changed || w.sandbox.On() {
		t.Errorf("without a root: changed %v, on %v, %v", changed, w.sandbox.On(), err)
	}
	for _, st := range w.states()[:1] {
		if st.Window != nil {
			t.Errorf("state %+v", st.Window)
		}
	}
}

func TestWindowEndsByItself(t *testing.T) {
	w := newDynamic(t)
	w.on(5 * time.Millisecond)
	shimtest.Eventually(t, "the window's end", func() bool { return len(w.spans.Named(names.SwitchedOff)) == 1 })
	if w.sandbox.On() {
		t.Error("it has an end but is on")
	}
	shimtest.Want(t, w.spans.One(names.SwitchedOn).Attributes(), "user.name=alice", "user.id=1000", "shimtrace.switched_on.for=5ms")
	shimtest.Want(t, w.spans.One(names.SwitchedOff).Attributes(), "shimtrace.switched_off.reason=time is over")
}

// A later word counts: more time, less, or no end.
func TestWindowsTimeIsChanged(t *testing.T) {
	for name, tt := range map[string]struct {
		first, then time.Duration
		ends        bool
	}{
		"more":   {time.Minute, time.Hour, false},
		"less":   {time.Hour, 5 * time.Millisecond, true},
		"no end": {time.Minute, 0, false},
		"an end": {0, 5 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newDynamic(t)
			w.on(tt.first)
			old := w.window().Until
			w.on(tt.then)
			if tt.ends {
				shimtest.Eventually(t, "the window's end", func() bool { return !w.sandbox.On() })
			} else {
				w.switcher.expire(old) // its timer may have fired as the time was changed
				if !w.sandbox.On() {
					t.Error("it ended when it was to end at first")
				}
			}
			w.switcher.close()
			w.spans.One(names.SwitchedOn)
			w.spans.One(names.SwitchedOff)
		})
	}
}

// A window ends with its sandbox, whose delete is in it yet.
func TestWindowEndsWithTheSandbox(t *testing.T) {
	w := newDynamic(t)
	w.create(trace.SpanContext{})
	w.on(time.Hour)
	w.leave()
	w.switcher.close()
	shimtest.Want(t, w.spans.One(names.SwitchedOff).Attributes(), "shimtrace.switched_off.reason=sandbox ended")
	if _, err := w.switcher.on(alice, 0); !errors.Is(err, errOver) {
		t.Errorf("switched on after the end: %v", err)
	}
	if w.switcher.off(alice) {
		t.Error("switched off after the end")
	}
	left, err := state.Read(filepath.Join(w.bundle, state.File))
	if err != nil {
		t.Fatal(err)
	}
	if root, recorded := left.Root(time.Now()); !recorded || !root.Equal(w.Root()) {
		t.Errorf("left for delete: %+v", left.Window)
	}
	if _, recorded := left.Root(time.Now().Add(2 * time.Hour)); recorded {
		t.Error("a delete of a later time is in the window")
	}
	off := newDynamic(t)
	off.switcher.close()
	if n := len(off.spans.Ended()); n != 0 {
		t.Errorf("%d spans of a sandbox that was never traced", n)
	}
}

// What start left is recorded if tracing is on when the container comes.
func TestPendingSpansOfAWindow(t *testing.T) {
	w := newDynamic(t)
	w.create(trace.SpanContext{})
	if n := len(w.spans.Named(names.ShimStart)); n != 0 {
		t.Errorf("%d spans of a start when tracing was off", n)
	}
	w = newDynamic(t)
	w.on(0)
	w.create(trace.SpanContext{})
	if start := w.spans.One(names.ShimStart); start.Parent().SpanID() != w.Root().SpanID() {
		t.Errorf("start is under %v", start.Parent())
	}
	w.switcher.close()
}

// collated is a collator that is told of windows.
type collated struct{ *collate.Collator }

func (c collated) Opened(root trace.SpanContext, at time.Time) { c.SetRoot(root, at) }
func (c collated) Closed(at time.Time)                         { c.EndRoot(at) }

// Spans that come late are of a window if they were made in it, by the host's clock.
func TestSpansOfAWindow(t *testing.T) {
	w := newDynamic(t)
	sent, spans := 0, uint64(0)
	own := collate.New(collate.Options{
		Options: calls.Options{Root: w.Root(), OnDemand: true}, Drop: func(_ collate.Reason, n int) { w.Unrecorded(n) },
		Sink: func(_ *resourcepb.Resource, _ string, _ []byte, n int) { sent += n },
	})
	w.windows = collated{own}
	wanted := func(begin, end time.Time) bool {
		before := sent
		spans++
		own.Add(&span.Span{
			TraceID: [16]byte{15: byte(spans)}, SpanID: [8]byte{7: byte(spans)}, Name: "check",
			Start: uint64(begin.UnixNano()), End: uint64(end.UnixNano()),
		})
		own.Tick()
		return sent > before
	}
	if wanted(time.Now(), time.Now()) {
		t.Error("a span is wanted though tracing was never on")
	}
	w.on(0)
	began := w.window().Began
	time.Sleep(2 * time.Millisecond)
	w.switcher.off(alice)
	ended := w.window().Ended
	time.Sleep(2 * time.Millisecond)
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		begin, end time.Time
		want       bool
	}{
		"before":  {began.Add(-9 * ms), began.Add(-ms), false},
		"into":    {began.Add(-9 * ms), began.Add(ms), true},
		"within":  {began.Add(ms), began.Add(ms + 1), true},
		"all":     {began.Add(-9 * ms), ended.Add(ms), true},
		"out of":  {began.Add(ms), ended.Add(ms), true},
		"after":   {ended.Add(1), ended.Add(ms), false},
		"by far":  {time.Unix(0, 0), began.Add(-time.Hour), false},
		"of 1970": {time.Unix(0, 0), began.Add(ms), true},
	} {
		if got := wanted(tt.begin, tt.end); got != tt.want {
			t.Errorf("%s: wanted %v", name, got)
		}
	}
	if n := w.unrecorded.Load(); n != 4 {
		t.Errorf("%d counted, want 4", n)
	}
	w.on(0)
	if !wanted(began.Add(ms), began.Add(ms+1)) {
		t.Error("a span of an earlier window that comes late is not wanted")
	}
}

// The files always end up saying what is, whoever writes them at the same time.
func TestSwitchingWhileContainersCome(t *testing.T) {
	w := newDynamic(t)
	var coming sync.WaitGroup
	var bundles []string
	for i := range 30 {
		bundle := filepath.Join(t.TempDir(), "b")
		if err := os.Mkdir(bundle, 0o700); err != nil {
			t.Fatal(err)
		}
		bundles = append(bundles, bundle)
		coming.Go(func() {
			w.Forwarded(&middleware.Call{Method: "Create", ContainerID: string(rune('a' + i)), Bundle: bundle, Start: t0, End: t0})
		})
	}
	for range 15 {
		w.on(0)
		w.switcher.off(alice)
	}
	w.on(0)
	coming.Wait()
	for _, bundle := range bundles {
		st, err := state.Read(filepath.Join(bundle, state.File))
		if err != nil {
			t.Fatal(err)
		}
		if root, recorded := st.Root(time.Now()); !recorded || !root.Equal(w.Root()) {
			t.Errorf("left in a bundle: %+v", st.Window)
		}
	}
	w.switcher.close()
}

func TestControl(t *testing.T) {
	w := newDynamic(t)
	w.create(trace.SpanContext{})
	w.state.Sandbox, w.state.Pod, w.state.PodNamespace = "c1", "web-0", "shop"
	memory, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	memory.waiting().Store(5)
	j := journal.New(t.TempDir(), journal.Options{})
	r := &Process{
		Options: Options{Log: w.log}, sandbox: w.sandbox, paths: state.PathsOf(t.TempDir(), "x"),
		tel: &telemetry.Telemetry{Journal: j}, memory: memory, resumed: 2,
	}
	if err := r.paths.Create(); err != nil {
		t.Fatal(err)
	}
	if r.serveControl(nil); r.controls == nil {
		t.Fatal("no control socket")
	}
	defer r.controls.Close()
	if st, err := os.Lstat(r.paths.Control); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", st, err)
	}
	ask := func(req control.Request) (control.Answer, error) {
		return control.Ask(t.Context(), r.paths.Control, req)
	}
	a, err := ask(control.Request{Do: control.DoStatus})
	if err != nil || a.On || a.Changed || a.Window != nil || a.Sandbox != "c1" || a.Pod != "web-0" || a.PodNamespace != "shop" ||
		len(a.Containers) != 1 || a.Containers[0] != (control.Container{ID: "c1", Name: "box"}) {
		t.Errorf("got %+v, %v", a, err)
	}
	if f := a.Facts; f == nil || f.PID != os.Getpid() || f.Resumed != 2 || f.Recorded == nil || *f.Recorded != 0 ||
		f.Waiting == nil || *f.Waiting != 5 || f.Held != nil || f.Reparented != nil || f.Clock != nil {
		t.Errorf("facts %+v", f)
	}
	a, err = ask(control.Request{Do: control.DoOn, For: time.Hour, By: "bob\xff" + string(make([]byte, 100))})
	if err != nil || !a.On || !a.Changed || a.Window == nil || !a.Window.Sampled || a.Window.TraceID != w.Root().TraceID().String() || a.Window.Until.IsZero() {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err := ask(control.Request{Do: control.DoOn}); err != nil || !a.On || a.Changed || !a.Window.Until.IsZero() {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err := ask(control.Request{Do: control.DoOff}); err != nil || a.On || !a.Changed || a.Window.Ended.IsZero() {
		t.Errorf("got %+v, %v", a, err)
	}
	for _, req := range []control.Request{{Do: "dance"}, {Do: ""}, {Do: control.DoOn, For: -1}} {
		if a, err := ask(req); err == nil || a.On {
			t.Errorf("%+v was answered with %+v", req, a)
		}
	}
	shimtest.Want(t, w.spans.One(names.SwitchedOff).Attributes(), "user.name=unknown", "user.id="+strconv.Itoa(os.Geteuid()), "shimtrace.switched_off.reason=command")
	// One that is traced all the time answers, and cannot be switched.
	w.state.Dynamic = false
	w.switcher = newSwitcher(w.sandbox, config.Default().Trace, "static")
	if a, err := ask(control.Request{Do: control.DoStatus}); err != nil || !a.On || a.Facts == nil {
		t.Errorf("got %+v, %v", a, err)
	}
	for _, do := range []string{control.DoOn, control.DoOff} {
		if a, err := ask(control.Request{Do: do}); err == nil || !strings.Contains(err.Error(), "static") || a.Changed {
			t.Errorf("%s: got %+v, %v", do, a, err)
		}
	}
	for _, kv := range w.spans.One(names.SwitchedOn).Attributes() {
		if kv.Key == "user.name" && len(kv.Value.AsString()) > control.MaxBy {
			t.Errorf("user.name has %d bytes", len(kv.Value.AsString()))
		}
	}
	r.paths.Remove()
	if _, err := net.Dial("unix", r.paths.Control); err == nil {
		t.Error("the socket is still there")
	}
}

// TestWindowOfAStaticSandbox: a window that cannot be, in what a relay has saved, costs
// nothing else.
func TestWindowOfAStaticSandbox(t *testing.T) {
	for name, ended := range map[string]time.Time{"open": {}, "ended": t0.Add(time.Second)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, true)
			root := w.Root()
			w.state.Window = &state.Window{Trace: state.NewTraceContext(export.NewRoot(t.Context(), config.Default().Trace)), Began: t0, Ended: ended}
			w.restore(savedSandbox{State: w.state, LastError: "it is known"})
			if !w.Root().Equal(root) || !w.On() || w.window() != nil || w.lastError != "it is known" {
				t.Errorf("root %v, on %v, window %v, error %q", w.Root(), w.On(), w.window(), w.lastError)
			}
		})
	}
}
