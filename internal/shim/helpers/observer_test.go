package helpers

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/procevents"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/middleware"
)

func TestMain(m *testing.M) { shimtest.Main(m) }

// world is a sandbox with calls and helpers.
type world struct {
	*Observer
	t      *testing.T
	spans  *shimtest.Spans
	call   ttrpc.UnaryClientInterceptor
	root   trace.SpanContext
	off    bool
	ahead  time.Duration // of the clock, for what is told of
	losses losses.Tally
}

func (w *world) On() bool                               { return !w.off }
func (w *world) Root() trace.SpanContext                { return w.root }
func (w *world) Attributes(string) []attribute.KeyValue { return nil }
func (w *world) Changed()                               {}

func newWorld(t *testing.T) *world {
	w := &world{t: t, spans: shimtest.NewSpans(t)}
	cfg := config.Default().Trace
	provider := export.NewTracerProvider(cfg, w.spans)
	w.root = export.NewRoot(t.Context(), cfg)
	w.Observer = New(Options{Sandbox: w, Tracer: provider.Tracer(names.ShimScope), Losses: &w.losses, Slow: time.Hour})
	w.call = middleware.UnaryClientInterceptor(middleware.WithTracerProvider(provider), middleware.WithQuiet(time.Hour, "State"), middleware.WithObserver(w.Observer, parents{root: w.root}))
	return w
}

// parents puts calls below the root.
type parents struct {
	middleware.NopObserver
	root trace.SpanContext
}

func (p parents) Parent(*middleware.Call) (parent, link trace.SpanContext) { return p.root, parent }

// during makes a call of a container, or of an exec of its, in which something happens.
func (w *world) during(method, container, exec string, err error, what func()) {
	w.t.Helper()
	w.starting(initPID, method, container, exec, err, what)
}

// starting is during; the answer has a pid.
func (w *world) starting(pid uint64, method, container, exec string, err error, what func()) {
	w.t.Helper()
	var payload []byte
	for i, text := range []string{container, exec} {
		if text != "" {
			payload = protowire.AppendString(protowire.AppendTag(payload, protowire.Number(i+1), protowire.BytesType), text)
		}
	}
	req := &ttrpc.Request{Service: "containerd.task.v3.Task", Method: method, Payload: payload}
	got := w.call(w.t.Context(), req, &ttrpc.Response{}, &ttrpc.UnaryClientInfo{}, func(_ context.Context, _ *ttrpc.Request, r *ttrpc.Response) error {
		what()
		if err == nil && (method == "Create" || method == "Start") {
			r.Payload = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), pid)
		}
		return err
	})
	if !errors.Is(got, err) {
		w.t.Fatal(got)
	}
}

const initPID = 77

func (w *world) runs(pid, above int, program string, more procevents.Report) {
	more.Kind, more.PID, more.Above, more.Program = procevents.Began, pid, above, program
	more.Start, more.Forked, more.At = uint64(pid), procevents.Now()+w.ahead, procevents.Now()+w.ahead
	w.Report(more)
}

func (w *world) ends(pid int, status uint32) {
	w.Report(procevents.Report{Kind: procevents.Ended, PID: pid, Start: uint64(pid), At: procevents.Now() + w.ahead, Status: status, CPU: 5})
}

// over tells that the inner shim has ended.
func (w *world) over() { w.Report(procevents.Report{Kind: procevents.Over, At: procevents.Now()}) }

// below checks that the only span of a name is the child of that of another one, and
// returns it.
func (w *world) below(name, parent string) sdktrace.ReadOnlySpan {
	w.t.Helper()
	s := w.spans.One(name)
	want := w.root.SpanID()
	if parent != "" {
		want = w.spans.One(parent).SpanContext().SpanID()
	}
	if s.Parent().SpanID() != want {
		w.t.Errorf("%s is not below %q", name, parent)
	}
	return s
}

func runc(subcommand, container, exec string) procevents.Report {
	return procevents.Report{Role: procevents.OCIRuntime, Subcommand: subcommand, Container: container, Exec: exec}
}

const (
	create = "containerd.task.v3.Task/Create"
	start  = "containerd.task.v3.Task/Start"
	kill   = "containerd.task.v3.Task/Kill"
)

// TestHelpers: a helper is below the call that caused it, or the helper that began it, and
// a container's program is an event of the call that started it.
func TestHelpers(t *testing.T) {
	w := newWorld(t)
	w.during("Create", "c1", "", nil, func() {
		w.runs(1, 0, "runc", runc("create", "c1", ""))
		w.runs(2, 1, "ldconfig", procevents.Report{Role: procevents.Hook})
		w.ends(2, 0)
		w.ends(1, 0)
	})
	w.during("Start", "c1", "", nil, func() {
		w.runs(3, 0, "runc", runc("start", "c1", ""))
		w.Report(procevents.Report{Kind: procevents.Inside, PID: initPID, At: procevents.Now()})
		w.ends(3, 0)
	})
	w.runs(4, 0, "runc", runc("kill", "c1", ""))
	w.ends(4, 0)
	w.below("runc create", create)
	shimtest.Want(t, w.below("ldconfig", "runc create").Attributes(),
		"process.executable.name=ldconfig", "process.pid=2", "shimtrace.process.role=hook", "shimtrace.process.cpu_time_ns=5", "process.exit.code=0")
	w.below("runc start", start)
	w.below("runc kill", "")
	if e := w.spans.One(start).Events(); len(e) != 1 || e[0].Name != names.ProgramExecuted {
		t.Errorf("events of Start: %v", e)
	}
	if at, ok := w.First(0); !ok || time.Since(at) > time.Minute || time.Since(at) < 0 {
		t.Error("the first program was executed at ", at)
	}
}

// TestSeveralCalls: of several calls in flight it is that of the container and of what is
// done, and otherwise that which began last.
func TestSeveralCalls(t *testing.T) {
	w := newWorld(t)
	w.during("Create", "c1", "", nil, func() {
		w.during("Kill", "c2", "", nil, func() {
			w.during("State", "c2", "", nil, func() {
				w.runs(1, 0, "runc", runc("create", "c1", ""))
				w.runs(2, 0, "virtiofsd", procevents.Report{})
				w.runs(3, 0, "runc", runc("start", "c2", ""))
				for pid := range 3 {
					w.ends(pid+1, 0)
				}
			})
		})
	})
	w.below("runc create", create)
	w.below("virtiofsd", kill)
	w.below("runc start", kill)
	w = newWorld(t)
	w.during("Start", "c", "e1", nil, func() {
		w.during("Start", "c", "e2", nil, func() {
			w.runs(1, 0, "runc", runc("exec", "c", "e1"))
			w.ends(1, 0)
		})
	})
	for _, s := range w.spans.Named(start) {
		isFirst := slices.Contains(s.Attributes(), middleware.ExecIDKey.String("e1"))
		if is := w.spans.One("runc exec").Parent().SpanID() == s.SpanContext().SpanID(); is != isFirst {
			t.Error("the exec is below another one's Start")
		}
	}
}

// executed returns how many programs a Start says that it has executed, by its exec; "": by
// no Start.
func (w *world) executed() map[string]int {
	n, of := make(map[string]int), make(map[trace.SpanID]string)
	for _, s := range w.spans.Named(start) {
		exec := "init"
		for _, a := range s.Attributes() {
			if a.Key == middleware.ExecIDKey {
				exec = a.Value.AsString()
			}
		}
		of[s.SpanContext().SpanID()] = exec
		if len(s.Events()) > 0 {
			n[exec] += len(s.Events())
		}
	}
	for _, s := range w.spans.Named(names.ProgramExecuted) {
		n[of[s.Parent().SpanID()]]++
	}
	return n
}

func (w *world) wantExecuted(want map[string]int) {
	w.t.Helper()
	if got := w.executed(); !maps.Equal(got, want) {
		w.t.Errorf("executed: %v, want %v", got, want)
	}
}

// TestProgramsOfSeveral: of several Starts in flight each has its own program, which is told
// of after the runc has ended that made it, and before the answer that has its pid.
func TestProgramsOfSeveral(t *testing.T) {
	for name, made := range map[string]func(exec string) procevents.Report{
		"by the command line": func(exec string) procevents.Report { return runc("exec", "c", exec) },
		"by the answer":       func(string) procevents.Report { return procevents.Report{} },
		"by no exec's id":     func(string) procevents.Report { return runc("exec", "c", "") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			inside := func(pid int, exec string) {
				w.runs(pid+100, 0, "runc", runc("exec", "c", exec))
				w.ends(pid+100, 0)
				r := made(exec)
				r.Kind, r.PID, r.Above, r.At = procevents.Inside, pid, pid+100, procevents.Now()
				w.Report(r)
			}
			w.starting(1, "Start", "c", "e1", nil, func() {
				w.starting(2, "Start", "c", "e2", nil, func() {
					w.starting(3, "Start", "c", "e3", nil, func() {
						inside(1, "e1")
						inside(2, "e2")
						inside(3, "e3")
					})
				})
			})
			w.wantExecuted(map[string]int{"e1": 1, "e2": 1, "e3": 1})
			if len(w.pids)+len(w.nameless) > 0 {
				t.Errorf("remembered: %v, %v", w.pids, w.nameless)
			}
		})
	}
}

// TestGoneOfSeveral: of several Starts in flight each has its own program, which was gone
// before anybody could look at it. A helper that was gone is none.
func TestGoneOfSeveral(t *testing.T) {
	w := newWorld(t)
	w.starting(1, "Start", "c", "e1", nil, func() {
		w.starting(2, "Start", "c", "e2", nil, func() {
			for _, pid := range []int{1, 2, 3} {
				w.runs(pid, 0, "", procevents.Report{})
				w.ends(pid, 0)
			}
		})
	})
	w.wantExecuted(map[string]int{"e1": 1, "e2": 1})
	w.spans.One(names.UnknownProgram)
}

// TestDoubt: a program that no answer names is that of the one Start that has named none;
// of two it is nobody's.
func TestDoubt(t *testing.T) {
	inside := func(w *world, pid int) func() {
		return func() {
			w.Report(procevents.Report{Kind: procevents.Inside, PID: pid, At: procevents.Now()})
		}
	}
	no := errors.New("no")
	w := newWorld(t)
	w.starting(1, "Start", "c", "e1", nil, func() {
		w.starting(0, "Start", "c", "e2", no, func() {
			inside(w, 1)()
			inside(w, 2)()
		})
	})
	w.wantExecuted(map[string]int{"e1": 1, "e2": 1})
	w = newWorld(t)
	w.starting(0, "Start", "c", "e1", no, func() { w.starting(0, "Start", "c", "e2", no, inside(w, 5)) })
	w.wantExecuted(map[string]int{"": 1})
	if attrs := w.below(names.ProgramExecuted, "").Attributes(); len(attrs) != 0 {
		t.Errorf("a program of nobody's has %v", attrs)
	}
	w = newWorld(t)
	inside(w, 5)()
	w.wantExecuted(map[string]int{"": 1})
}

// TestFailures: a helper's failure is an error if its call has failed, otherwise somebody
// has taken it for an answer.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	w.during("Create", "c1", "", errors.New("no"), func() {
		w.runs(1, 0, "runc", runc("create", "c1", ""))
		w.runs(2, 1, "failing-hook", procevents.Report{Role: procevents.Hook})
		w.ends(2, 3<<8)
		w.ends(1, 1<<8)
	})
	w.during("Kill", "c1", "", nil, func() {
		w.runs(3, 0, "runc", runc("kill", "c1", ""))
		w.ends(3, 9)
	})
	if s := w.below("failing-hook", "runc create").Status(); s.Code != codes.Error || s.Description != "exit status 3" {
		t.Errorf("the hook: %v", s)
	}
	if s := w.below("runc create", create).Status(); s.Code != codes.Error {
		t.Errorf("runc: %v", s)
	}
	s := w.below("runc kill", kill)
	if s.Status().Code != codes.Unset || !slices.Contains(s.Attributes(), attribute.Bool(names.Expected, true)) || !slices.Contains(s.Attributes(), attribute.Int(names.Signal, 9)) {
		t.Errorf("a failure that is none: %v %v", s.Status(), s.Attributes())
	}
}

// TestLate: what is told after its call is recorded all the same.
func TestLate(t *testing.T) {
	w := newWorld(t)
	var at time.Duration
	w.during("Start", "c1", "", nil, func() { at = procevents.Now() })
	w.Report(procevents.Report{Kind: procevents.Inside, PID: initPID, At: at})
	if s := w.below(names.ProgramExecuted, start); !s.StartTime().Equal(s.EndTime()) {
		t.Error("it takes a time")
	}
	w.Report(procevents.Report{Kind: procevents.Began, PID: 5, Program: "late", Forked: at, At: at})
	w.ends(5, 0)
	w.below("late", start)
}

// TestUnknown: who was gone before it could be looked at is a container's program if an
// answer has its pid, and otherwise a helper without a name.
func TestUnknown(t *testing.T) {
	w := newWorld(t)
	w.during("Start", "c1", "", nil, func() {
		w.runs(initPID, 0, "", procevents.Report{})
		w.ends(initPID, 0)
		w.runs(6, 0, "", procevents.Report{})
		w.ends(6, 0)
	})
	w.below(names.UnknownProgram, start)
	if e := w.spans.One(start).Events(); len(e) != 1 || e[0].Name != names.ProgramExecuted {
		t.Errorf("events of Start: %v", e)
	}
}

// TestWithoutAName: nothing says which of several calls has had a program without a name executed.
// One that waits has not.
func TestWithoutAName(t *testing.T) {
	unknown := func(w *world) {
		w.runs(6, 0, "", procevents.Report{})
		w.ends(6, 0)
	}
	w := newWorld(t)
	w.during("Start", "c1", "", nil, func() {
		w.during("Kill", "c2", "", nil, func() { unknown(w) })
	})
	w.below(names.UnknownProgram, "")
	w = newWorld(t)
	w.during("Start", "c1", "", nil, func() {
		w.during("State", "c2", "", nil, func() { unknown(w) }) // quiet
	})
	w.below(names.UnknownProgram, start)
	w = newWorld(t)
	w.during("Start", "c1", "", nil, func() {
		w.during("Wait", "c1", "", nil, func() {
			unknown(w)
			w.runs(7, 0, "nsenter", procevents.Report{})
			w.ends(7, 0)
		})
	})
	w.below(names.UnknownProgram, start)
	w.below("nsenter", start)
}

// TestQuiet: below a quiet call only what fails is recorded, and then the call is, too.
func TestQuiet(t *testing.T) {
	w := newWorld(t)
	w.during("State", "c1", "", nil, func() {
		w.runs(1, 0, "runc", runc("state", "c1", ""))
		w.ends(1, 0)
	})
	if n := len(w.spans.Ended()); n != 0 {
		t.Errorf("%d spans of a quiet call", n)
	}
	w.during("State", "c1", "", nil, func() {
		w.runs(1, 0, "runc", runc("state", "c1", ""))
		w.ends(1, 1<<8)
	})
	w.below("runc state", "containerd.task.v3.Task/State")
}

// TestDropped: events that the kernel has dropped are counted, and what they concern says
// so.
func TestDropped(t *testing.T) {
	w := newWorld(t)
	w.during("Create", "c1", "", nil, func() {
		w.runs(1, 0, "runc", runc("create", "c1", ""))
		w.Report(procevents.Report{Kind: procevents.Dropped, At: procevents.Now(), Lost: 100})
		w.Report(procevents.Report{Kind: procevents.Dropped, At: procevents.Now(), Lost: 100})
		w.Report(procevents.Report{Kind: procevents.Listed})
	})
	lost := attribute.Bool(names.ProcessEventsLost, true)
	if !slices.Contains(w.below("runc create", create).Attributes(), lost) || !slices.Contains(w.spans.One(create).Attributes(), lost) {
		t.Error("nothing says that something was not seen")
	}
	if n := w.losses.Of(losses.ProcessEvents); n != 1 {
		t.Errorf("%d counted, want 1", n)
	}
}

// TestOff: while nothing is recorded, helpers are not.
func TestOff(t *testing.T) {
	w := newWorld(t)
	w.off = true
	w.runs(1, 0, "runc", procevents.Report{})
	w.ends(1, 0)
	w.Report(procevents.Report{Kind: procevents.Inside, PID: 2, At: procevents.Now()})
	w.over()
	w.Close()
	if n := len(w.spans.Ended()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

// TestResume: another process goes on with the helpers that run, under the same ids.
func TestResume(t *testing.T) {
	w := newWorld(t)
	w.runs(1, 0, "qemu-system-x86_64", procevents.Report{Role: procevents.VMM})
	w.runs(2, 0, "gone", procevents.Report{})
	saved, err := w.Save()
	if err != nil {
		t.Fatal(err)
	}
	next := newWorld(t)
	if err := next.Restore(saved); err != nil {
		t.Fatal(err)
	}
	next.root = w.root
	next.Report(procevents.Report{Kind: procevents.Runs, PID: 1, Start: 1, Program: "qemu-system-x86_64", At: procevents.Now(), Forked: procevents.Now()})
	next.Report(procevents.Report{Kind: procevents.Listed})
	next.runs(3, 1, "below", procevents.Report{})
	next.ends(3, 0)
	next.ends(1, 0)
	next.below("qemu-system-x86_64", "")
	next.below("below", "qemu-system-x86_64")
	if !slices.Contains(next.below("gone", "").Attributes(), attribute.Bool(names.ProcessEventsLost, true)) {
		t.Error("a helper whose end was not seen does not say so")
	}
	if got, want := next.spans.One("qemu-system-x86_64").SpanContext().SpanID(), w.open[1].span.SpanContext().SpanID(); got != want {
		t.Error("it has another id")
	}
}

// TestResumeNameless: what awaited its name awaits it in another process, where the calls go
// on.
func TestResumeNameless(t *testing.T) {
	var saved json.RawMessage
	w := newWorld(t)
	w.ahead = time.Minute // later than the calls begin that the other process goes on with
	w.during("Start", "c", "", nil, func() {
		w.Report(procevents.Report{Kind: procevents.Inside, PID: 1, At: procevents.Now() + w.ahead})
		w.runs(2, 0, "", procevents.Report{})
		w.ends(2, 0)
		w.runs(3, 0, "", procevents.Report{})
		w.ends(3, 0)
		var err error
		if saved, err = w.Save(); err != nil {
			t.Fatal(err)
		}
	})
	next := newWorld(t)
	if err := next.Restore(saved); err != nil {
		t.Fatal(err)
	}
	next.starting(1, "Start", "c", "e1", nil, func() {
		next.starting(2, "Start", "c", "e2", nil, func() {})
		if n := len(next.nameless); n != 2 {
			t.Errorf("%d await their names, want 2", n)
		}
	})
	next.wantExecuted(map[string]int{"e1": 1, "e2": 1})
	next.spans.One(names.UnknownProgram)
}

// TestClose: what runs to the end of the relay is recorded then.
func TestClose(t *testing.T) {
	w := newWorld(t)
	w.runs(1, 0, "vmm", procevents.Report{})
	w.during("Start", "c", "", nil, func() {
		w.Report(procevents.Report{Kind: procevents.Inside, PID: 9, At: procevents.Now()})
		w.runs(2, 0, "", procevents.Report{})
		w.ends(2, 0)
		w.over()
		w.Close()
	})
	w.below("vmm", "")
	w.below(names.UnknownProgram, start)
	w.wantExecuted(map[string]int{"init": 1})
}

// TestCloseAwaitsTheLastReport: what the inner shim has executed in the end is recorded, also
// if it is told of late; what is told of after that is counted.
func TestCloseAwaitsTheLastReport(t *testing.T) {
	w := newWorld(t)
	w.patience = time.Minute
	w.runs(1, 0, "first", procevents.Report{})
	w.ends(1, 0)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		w.Close()
	}()
	time.Sleep(20 * time.Millisecond) // without a reason to wait it would have closed by now
	w.runs(2, 0, "last", procevents.Report{})
	w.ends(2, 0)
	w.over()
	<-closed
	w.below("first", "")
	w.below("last", "")
	w.runs(3, 0, "late", procevents.Report{})
	w.ends(3, 0)
	w.Report(procevents.Report{Kind: procevents.Inside, PID: 4, At: procevents.Now()})
	w.off = true
	w.runs(5, 0, "off", procevents.Report{})
	if n, spans := w.losses.Of(losses.Shutdown), len(w.spans.Ended()); n != 2 || spans != 2 {
		t.Errorf("%d counted, want 2; %d spans", n, spans)
	}
}

// TestCloseWithoutReports: nobody is waited for who is not there.
func TestCloseWithoutReports(t *testing.T) {
	w := newWorld(t)
	w.patience = time.Hour
	w.Close()
	w = newWorld(t)
	w.patience = time.Hour
	w.runs(1, 0, "vmm", procevents.Report{})
	w.Unrecorded() // another guard does not find the inner shim
	w.Close()
	w.below("vmm", "")
	w = newWorld(t)
	w.patience = time.Hour
	w.Alive = func() bool { return true }
	w.runs(1, 0, "vmm", procevents.Report{})
	w.Close()
	w.below("vmm", "")
}

// TestBound: helpers are not remembered without bound.
func TestBound(t *testing.T) {
	w := newWorld(t)
	for pid := range maxHelpers + 10 {
		w.runs(pid+1, 0, "x", procevents.Report{})
	}
	if len(w.open) != maxHelpers || w.losses.Of(losses.ProcessEvents) != 10 {
		t.Errorf("%d open, %d lost", len(w.open), w.losses.Of(losses.ProcessEvents))
	}
}

// TestQuietCallIsKeptLater: a quiet call that was not recorded is recorded after all when
// a helper below it fails later, or while it is answered. Nobody waits for anybody meanwhile.
func TestQuietCallIsKeptLater(t *testing.T) {
	w := newWorld(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.during("State", "c1", "", nil, func() { w.runs(1, 0, "runc", runc("state", "c1", "")) })
		w.ends(1, 1<<8) // told after the call's end
		w.during("State", "c2", "", nil, func() {
			w.runs(2, 0, "runc", runc("state", "c2", ""))
			w.ends(2, 1<<8)
		})
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the observer hangs")
	}
	n := 0
	for _, s := range w.spans.Ended() {
		if s.Name() == "runc state" {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d of 2 failed helpers are recorded", n)
	}
}
