package relay

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/middleware"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is a sandbox whose spans are recorded, and a bundle of one container.
type world struct {
	*sandbox
	t      *testing.T
	spans  *shimtest.Spans
	bundle string
}

func newWorld(t *testing.T, own bool) *world {
	t.Helper()
	rec := shimtest.NewSpans(t)
	cfg := config.Default().Trace
	provider := export.NewTracerProvider(cfg, rec)
	dir := t.TempDir()
	st := state.State{
		Version: state.Version,
		Trace:   state.NewTraceContext(export.NewRoot(t.Context(), cfg)),
		Started: t0,
	}
	w := &world{t: t, spans: rec, bundle: filepath.Join(dir, "bundle")}
	w.sandbox = newSandbox(provider.Tracer(names.ShimScope), func(context.Context) error { return nil }, slog.New(slog.DiscardHandler), st, filepath.Join(dir, "state.json"), own)
	w.switcher = newSwitcher(w.sandbox, cfg, "static")
	if err := os.Mkdir(w.bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	spec := `{"annotations":{"nerdctl/name":"box"}}`
	if err := os.WriteFile(filepath.Join(w.bundle, "config.json"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	left := st
	left.Pending = []state.Timing{{Name: names.ShimStart, Start: t0, End: t0.Add(9), Children: []state.Timing{{Name: names.InnerStart, Start: t0.Add(1), End: t0.Add(8)}}}}
	if err := left.Write(filepath.Join(w.bundle, state.File)); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) create(caller trace.SpanContext) {
	c := &middleware.Call{Method: "Create", ContainerID: "c1", Bundle: w.bundle, Caller: caller, Start: t0, End: t0.Add(50)}
	w.Answered(c) // the answer may be looked at before the request
	w.Forwarded(c)
}

func TestRootEndsWithTheFirstTask(t *testing.T) {
	w := newWorld(t, false)
	w.create(trace.SpanContext{})
	w.Answered(&middleware.Call{Method: "Start", ContainerID: "c1", ExecID: "e", End: t0.Add(60)})
	w.Answered(&middleware.Call{Method: "Start", ContainerID: "c1", Code: 2, Message: "no", End: t0.Add(70)})
	if len(w.spans.Named(names.SandboxStart)) != 0 {
		t.Fatal("root ended before a task ran")
	}
	w.Answered(&middleware.Call{Method: "Start", ContainerID: "c1", End: t0.Add(80)})
	w.Answered(&middleware.Call{Method: "Start", ContainerID: "c2", End: t0.Add(90)})
	w.neverStarted(t0.Add(100))
	root := w.spans.One(names.SandboxStart)
	if root.Parent().IsValid() || root.SpanContext().SpanID() != w.Root().SpanID() || root.SpanContext().TraceID() != w.Root().TraceID() {
		t.Errorf("root is %v under %v, want %v", root.SpanContext(), root.Parent(), w.Root())
	}
	if !root.StartTime().Equal(t0) || !root.EndTime().Equal(t0.Add(80)) || root.Status().Code != codes.Unset {
		t.Errorf("root lasts %v to %v, status %v", root.StartTime(), root.EndTime(), root.Status())
	}
	st, err := state.Read(w.statePath)
	if err != nil || !st.RootEnded || !st.RootEnd.Equal(t0.Add(80)) {
		t.Errorf("state beside the socket: %+v, %v", st, err)
	}
}

// A relay may be killed at any time: its files must never say that a root is
// exported which is still on its way.
func TestRootIsNotCalledExportedBeforeItIs(t *testing.T) {
	w := newWorld(t, false)
	flush := make(chan struct{})
	w.export = func(context.Context) error { <-flush; return nil }
	w.Answered(&middleware.Call{Method: "Start", ContainerID: "c1", End: t0.Add(80)})
	var st *state.State
	var err error
	shimtest.Eventually(t, "the root's end is in the state", func() bool {
		st, err = state.Read(w.statePath)
		return err == nil
	})
	if st.RootEnded || !st.RootEnd.Equal(t0.Add(80)) {
		t.Errorf("state while the root is being exported: %+v, %v", st, err)
	}
	close(flush)
	w.exports.Wait()
	if st, err := state.Read(w.statePath); err != nil || !st.RootEnded {
		t.Errorf("state after the root was exported: %+v, %v", st, err)
	}
}

func TestNothingIsWrittenAfterLeave(t *testing.T) {
	w := newWorld(t, false)
	w.leave()
	w.neverStarted(t0.Add(70))
	w.spans.One(names.SandboxStart)
	if _, err := os.Lstat(w.statePath); !os.IsNotExist(err) {
		t.Errorf("the state is back after the relay has removed it: %v", err)
	}
}

func TestRootOfASandboxThatNeverStarts(t *testing.T) {
	w := newWorld(t, false)
	w.create(trace.SpanContext{})
	w.Answered(&middleware.Call{Method: "Start", ContainerID: "c1", Code: 2, Message: "no such binary", End: t0.Add(60)})
	w.neverStarted(t0.Add(70))
	root := w.spans.One(names.SandboxStart)
	if root.Status().Code != codes.Error || !strings.Contains(root.Status().Description, "no such binary") {
		t.Errorf("status %+v", root.Status())
	}
}

// TestContainerFails: the journal keeps a sandbox longer, too, in which a container failed
// to start; it is told so once.
func TestContainerFails(t *testing.T) {
	w := newWorld(t, false)
	var told []string
	w.started = func(_ time.Duration, failure string) error { told = append(told, failure); return nil }
	w.Answered(&middleware.Call{Method: "Start", ContainerID: "c1", End: t0.Add(80)})
	w.exports.Wait()
	for _, c := range []middleware.Call{
		{Method: "Kill", ContainerID: "c2", Code: 2},
		{Method: "Start", ContainerID: "c2", ExecID: "e", Code: 2},
		{Method: "Create", ContainerID: "c2", Code: 2, Message: "no such file"},
		{Method: "Create", ContainerID: "c2", Code: 2, Message: "again"},
	} {
		w.Answered(&c)
		w.exports.Wait()
	}
	if want := []string{"", "Create of a container failed"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// TestJoin: which of two traces a call is in, and which it is linked to.
func TestJoin(t *testing.T) {
	caller := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{7}, SpanID: trace.SpanID{8}, TraceFlags: trace.FlagsSampled, Remote: true})
	none, unsampled := trace.SpanContext{}, caller.WithTraceFlags(0)
	w := newWorld(t, false)
	root := w.Root()
	unsampledRoot := root.WithTraceFlags(0)
	for name, tt := range map[string]struct {
		caller, root trace.SpanContext
		own          bool
		parent, link trace.SpanContext
	}{
		"no caller":                             {root: root, parent: root},
		"both, join caller":                     {caller: caller, root: root, parent: caller, link: root},
		"both, join sandbox":                    {caller: caller, root: root, own: true, parent: root, link: caller},
		"unsampled caller in a sampled sandbox": {caller: unsampled, root: root, parent: root, link: unsampled},
		"sampled caller in an unsampled one":    {caller: caller, root: unsampledRoot, parent: caller, link: unsampledRoot},
		"no trace, join sandbox":                {caller: caller, own: true, parent: none, link: caller},
	} {
		w.own.Store(tt.own)
		w.rootNow.Store(&tt.root)
		if parent, link := w.Parent(&middleware.Call{Caller: tt.caller}); !parent.Equal(tt.parent) || !link.Equal(tt.link) {
			t.Errorf("%s: parent %v, link %v; want %v, %v", name, parent, link, tt.parent, tt.link)
		}
	}
}

func TestStartsSpansFindTheirTrace(t *testing.T) {
	caller := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{7}, SpanID: trace.SpanID{8}, TraceFlags: trace.FlagsSampled, Remote: true})
	for _, tt := range []struct {
		name   string
		own    bool
		caller trace.SpanContext
		joins  bool
	}{
		{"no caller", false, trace.SpanContext{}, false},
		{"caller", false, caller, true},
		{"caller, but join sandbox", true, caller, false},
		{"caller that is not sampled", false, caller.WithTraceFlags(0), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.own)
			w.create(tt.caller)
			parent, links := w.Root(), 0
			if tt.joins {
				parent, links = caller, 1
			}
			start, inner := w.spans.One(names.ShimStart), w.spans.One(names.InnerStart)
			if start.Parent().SpanID() != parent.SpanID() || start.SpanContext().TraceID() != parent.TraceID() {
				t.Errorf("shim start is under %v, want %v", start.Parent(), parent)
			}
			if len(start.Links()) != links || links == 1 && !start.Links()[0].SpanContext.Equal(w.Root()) {
				t.Errorf("links %v", start.Links())
			}
			if inner.Parent().SpanID() != start.SpanContext().SpanID() {
				t.Errorf("inner start is under %v", inner.Parent())
			}
			shimtest.Want(t, start.Attributes(), "container.id=c1", "container.name=box")
			shimtest.Want(t, inner.Attributes(), "container.id=c1", "container.name=box")
			left, err := state.Read(filepath.Join(w.bundle, state.File))
			if err != nil || len(left.Pending) != 0 || left.Trace != w.state.Trace {
				t.Errorf("left for delete: %+v, %v", left, err)
			}
		})
	}
}

// sinkFunc is a sink.
type sinkFunc func()

func (f sinkFunc) Take(string, export.Ended) { f() }

// TestStartsSpansAreMadeFirst: what start left is in the bundle until there are spans of it.
func TestStartsSpansAreMadeFirst(t *testing.T) {
	w := newWorld(t, false)
	taken := 0
	w.tracer = export.NewTracerProvider(config.Default().Trace, sinkFunc(func() {
		taken++
		if st, err := state.Read(filepath.Join(w.bundle, state.File)); err != nil || len(st.Pending) != 1 {
			t.Errorf("the bundle has %+v, %v", st, err)
		}
	})).Tracer(names.ShimScope)
	w.create(trace.SpanContext{})
	if st, err := state.Read(filepath.Join(w.bundle, state.File)); taken != 2 || err != nil || len(st.Pending) != 0 {
		t.Errorf("%d spans; the bundle has %+v, %v", taken, st, err)
	}
}

func TestAnExitIsToldOnce(t *testing.T) {
	w := newWorld(t, false)
	w.create(trace.SpanContext{})
	exit := middleware.Call{Method: "Wait", ContainerID: "c1", Exited: true, ExitStatus: 137, ExitedAt: t0.Add(200), End: t0.Add(201)}
	for range 3 {
		c := exit
		w.Answered(&c)
	}
	other := exit
	other.ExecID = "e1"
	w.Answered(&other)
	span := w.spans.One(names.ContainerExited)
	if !span.StartTime().Equal(exit.ExitedAt) || !span.EndTime().Equal(exit.ExitedAt) || len(span.Events()) != 1 || !span.Events()[0].Time.Equal(exit.ExitedAt) {
		t.Errorf("span %v to %v, events %v", span.StartTime(), span.EndTime(), span.Events())
	}
	var attrs []string
	for _, a := range span.Attributes() {
		attrs = append(attrs, string(a.Key)+"="+a.Value.String())
	}
	slices.Sort(attrs)
	if got := strings.Join(attrs, " "); got != "container.id=c1 container.name=box process.exit.code=137" {
		t.Errorf("attributes %s", got)
	}
	w.spans.One(names.ExecExited)
}

// TestContainerBeforeItIsAdopted: what the inner shim does for a Create can be over before
// the relay, which has forwarded it, comes round to the container; it is known all the same.
func TestContainerBeforeItIsAdopted(t *testing.T) {
	w := newWorld(t, false)
	c := &middleware.Call{Method: "Create", ContainerID: "c1", Bundle: w.bundle, Start: t0, End: t0.Add(50)}
	w.Began(c)
	shimtest.Want(t, w.Attributes("c1"), "container.name=box")
	if len(w.containers) != 0 || len(w.Attributes("c2")) != 0 {
		t.Errorf("containers %v, and of another one is known %v", w.containers, w.Attributes("c2"))
	}
	w.Lost(c)
	if len(w.Attributes("c1")) != 0 {
		t.Error("a call that is lost makes no container")
	}
	w.Began(c)
	w.Forwarded(c)
	shimtest.Want(t, w.Attributes("c1"), "container.name=box")
	if len(w.creating) != 0 {
		t.Errorf("it is still to come: %v", w.creating)
	}
}

func TestContainersAreForgotten(t *testing.T) {
	w := newWorld(t, false)
	w.create(trace.SpanContext{})
	w.Answered(&middleware.Call{Method: "Delete", ContainerID: "c1"})
	if len(w.Attributes("c1")) == 0 {
		t.Error("the span of Delete itself has lost the container's attributes")
	}
	w.Forwarded(&middleware.Call{Method: "Create", ContainerID: "c2", Bundle: w.bundle})
	if len(w.containers) != 1 {
		t.Errorf("%d containers remembered", len(w.containers))
	}
}

// TestExpectedOfSandbox: what is asked of a container before it is there is not why it
// did not start.
func TestExpectedOfSandbox(t *testing.T) {
	w := newWorld(t, false)
	early := &middleware.Call{Method: "State", ContainerID: "c1", Code: 5, Message: "not created"}
	early.Expected = w.lives.Expected(early)
	w.Answered(early)
	w.neverStarted(t0.Add(time.Second))
	if s := w.spans.One(names.SandboxStart); !early.Expected || strings.Contains(s.Status().Description, "not created") {
		t.Errorf("expected %v, status %v", early.Expected, s.Status())
	}
}

// TestDeletedIsInTheBundle: a container that was deleted by the call leaves that for the
// delete command.
func TestDeletedIsInTheBundle(t *testing.T) {
	w := newWorld(t, false)
	w.create(trace.SpanContext{})
	read := func() *state.State {
		st, err := state.Read(filepath.Join(w.bundle, state.File))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	w.Answered(&middleware.Call{Method: "Delete", ContainerID: "c1", ExecID: "e"})
	w.Answered(&middleware.Call{Method: "Delete", ContainerID: "c1", Code: 2})
	if read().Deleted {
		t.Error("it was not deleted yet")
	}
	w.Answered(&middleware.Call{Method: "Delete", ContainerID: "c1"})
	if st := read(); !st.Deleted || st.Trace != w.state.Trace {
		t.Errorf("state %+v", st)
	}
}
