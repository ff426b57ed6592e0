package critical_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
	"github.com/shimtrace/shimtrace/internal/waterfall/treetest"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

const (
	ms   = time.Millisecond
	task = storytest.Task
)

var (
	shim    = storytest.Resource("containerd-shim-runc-v2")
	runtime = storytest.Resource(names.RuntimeScope)
	agent   = storytest.Resource(names.AgentScope)
	caller  = &resourcepb.Resource{Attributes: []*commonpb.KeyValue{storytest.Attr(names.Service, "containerd")}}

	pause = storytest.With(storytest.Attr(names.Container, storytest.SandboxID))
	app   = storytest.With(storytest.Attr(names.Container, "app"))
)

// found returns the start in the only story of a script.
func found(t testing.TB, s *storytest.Script) *critical.Start {
	t.Helper()
	return critical.Find(treetest.Only(t, storytest.Message(s.Spans)))
}

// text draws a path: each span with its layer and milliseconds.
func text(s *critical.Start) string {
	if s == nil {
		return "nothing"
	}
	var parts []string
	for _, g := range s.Path {
		name := "-"
		if g.Node != nil {
			name = g.Node.Title()
		}
		inferred := ""
		if g.Inferred {
			inferred = "?"
		}
		parts = append(parts, fmt.Sprintf("%s %s%s %d", name, g.Layer, inferred, g.Length().Milliseconds()))
	}
	return strings.Join(parts, ", ")
}

func TestPath(t *testing.T) {
	start := func(s *storytest.Script) {
		s.Span(shim, "s", "root", "", names.SandboxStart, 0, 100*ms)
		s.Span(shim, "s", "start", "root", names.ShimStart, 0, 30*ms)
		s.Span(shim, "s", "inner", "start", names.InnerStart, 5*ms, 20*ms)
	}
	for _, tt := range []struct {
		name, want string
		spans      func(*storytest.Script)
	}{
		{"nothing of a start", "nothing", func(s *storytest.Script) {
			s.Span(shim, "s", "kill", "", task+"Kill", 0, 10*ms, app)
		}},
		{"one container", "shim start shimtrace 5, inner start shim 20, shim start shimtrace 5, - containerd? 10, Task/Create shim 40, - caller? 10, Task/Start shim 10", func(s *storytest.Script) {
			start(s)
			s.Span(shim, "s", "create", "root", task+"Create", 40*ms, 40*ms, pause)
			s.Span(shim, "s", "run", "root", task+"Start", 90*ms, 10*ms, pause)
		}},
		{"until the first instruction", "Task/Start shim 7", func(s *storytest.Script) {
			s.Span(shim, "s", "run", "", task+"Start", 90*ms, 20*ms, app, storytest.Event(names.ProgramExecuted, 7*ms))
		}},
		{"the first instruction as a span", "Task/Start shim 9", func(s *storytest.Script) {
			s.Span(shim, "s", "run", "", task+"Start", 90*ms, 20*ms, app)
			s.Span(shim, "s", "exec", "run", names.ProgramExecuted, 99*ms, 0)
		}},
		{"the first container, not the sandbox's own", "Task/Create shim 10, Task/Start shim 10, - caller? 20, Task/Create shim 10, Task/Start shim 10", func(s *storytest.Script) {
			s.Span(shim, "s", "create", "", task+"Create", 0, 10*ms, pause)
			s.Span(shim, "s", "run", "", task+"Start", 10*ms, 10*ms, pause)
			s.Span(shim, "s", "create app", "", task+"Create", 40*ms, 10*ms, app)
			s.Span(shim, "s", "run app", "", task+"Start", 50*ms, 10*ms, app)
			s.Span(shim, "s", "run other", "", task+"Start", 80*ms, 10*ms, storytest.With(storytest.Attr(names.Container, "other")))
		}},
		{"a start that failed", "Task/Create shim 10", func(s *storytest.Script) {
			s.Span(shim, "s", "create", "", task+"Create", 0, 10*ms, app, storytest.Failed("UNKNOWN", "no"))
		}},
		{"a start that goes on", "shim start shimtrace 5, inner start shim 20, shim start shimtrace 5, - containerd? 10, Task/Create shim 40", func(s *storytest.Script) {
			start(s)
			s.Span(shim, "s", "create", "root", task+"Create", 40*ms, 40*ms, pause)
		}},
		{"polling and waiting", "Task/Create shim 50, Task/Start shim 10", func(s *storytest.Script) {
			s.Span(shim, "s", "create", "", task+"Create", 0, 50*ms, app)
			s.Span(shim, "s", "state", "", task+"State", 0, 49*ms, app)
			s.Span(shim, "s", "stats", "", task+"Stats", 20*ms, 35*ms, app)
			s.Span(shim, "s", "wait", "", task+"Wait", 20*ms, time.Hour, app)
			s.Span(shim, "s", "run", "", task+"Start", 50*ms, 10*ms, app)
		}},
		{"children in turn, in parallel, and beyond the end", "Task/Create runtime 10, a runtime 10, Task/Create runtime 5, c runtime 15, Task/Create runtime 10, Task/Start runtime 10", func(s *storytest.Script) {
			s.Span(shim, "s", "create", "", task+"Create", 0, 50*ms, app)
			s.Span(runtime, "s", "a", "create", "a", 10*ms, 10*ms)
			s.Span(runtime, "s", "b", "create", "b", 23*ms, 10*ms)
			s.Span(runtime, "s", "c", "create", "c", 25*ms, 15*ms)
			s.Span(runtime, "s", "d", "create", "d", 30*ms, time.Hour)
			s.Span(shim, "s", "run", "", task+"Start", 50*ms, 10*ms, app)
		}},
		{"siblings of runtime-rs", "Task/Start runtime 2, handler_task_message runtime 1, handler_task_request runtime 10, start_process runtime 5, handler_task_message runtime 1, Task/Start runtime 1", func(s *storytest.Script) {
			s.Span(shim, "s", "run", "", task+"Start", 0, 20*ms, app)
			s.Span(runtime, "s", "message", "run", "handler_task_message", 2*ms, 17*ms)
			s.Span(runtime, "s", "request", "run", "handler_task_request", 3*ms, 15*ms)
			s.Span(runtime, "s", "process", "request", "start_process", 13*ms, 5*ms)
		}},
		{"a caller's spans", "NewTask containerd 2, shim start shimtrace 3, inner start shim 3, shim start shimtrace 2, NewTask containerd 2, Task/Create containerd 1, Task/Create shim 6, Task/Create containerd 1, NewTask containerd 2, StartContainer containerd 2, Task/Start shim 4", func(s *storytest.Script) {
			s.Span(caller, "c", "new", "", "NewTask", 0, 22*ms)
			s.Span(caller, "c", "client", "new", task+"Create", 12*ms, 8*ms)
			// It is below the first call that tells of a caller, which began later.
			s.Span(shim, "c", "start", "client", names.ShimStart, 2*ms, 8*ms)
			s.Span(shim, "c", "inner", "start", names.InnerStart, 5*ms, 3*ms)
			s.Span(shim, "c", "create", "client", task+"Create", 13*ms, 6*ms, app)
			s.Span(caller, "c", "run task", "", "StartContainer", 22*ms, 10*ms)
			s.Span(shim, "c", "run", "run task", task+"Start", 24*ms, 5*ms, app, storytest.Event(names.ProgramExecuted, 4*ms))
		}},
		{"the relay waits for the inner shim", "shim start shimtrace 2, inner start shim 20, relay spawn shimtrace 3, shim start shimtrace 5, - containerd? 10, Task/Start shim 10", func(s *storytest.Script) {
			s.Span(shim, "s", "root", "", names.SandboxStart, 0, 50*ms)
			s.Span(shim, "s", "start", "root", names.ShimStart, 0, 30*ms)
			s.Span(shim, "s", "inner", "start", names.InnerStart, 2*ms, 20*ms)
			s.Span(shim, "s", "spawn", "start", names.RelaySpawn, 3*ms, 22*ms)
			s.Span(shim, "s", "run", "root", task+"Start", 40*ms, 10*ms, app)
		}},
		{"phases of the boot", "Task/Create runtime 2, create runtime 2, VMM start VMM 8, guest boot guest kernel 40, agent connect agent 2, create runtime 34, Task/Create runtime 2, Task/Start runtime 10", func(s *storytest.Script) {
			s.Span(shim, "s", "create", "", task+"Create", 0, 90*ms, app)
			s.Span(runtime, "s", "rt", "create", "create", 2*ms, 86*ms)
			s.Span(shim, "s", "boot", "create", names.VMBoot, 4*ms, 50*ms)
			s.Span(shim, "s", "vmm", "boot", names.VMMStart, 4*ms, 8*ms)
			s.Span(shim, "s", "guest", "boot", names.GuestBoot, 12*ms, 40*ms)
			s.Span(shim, "s", "agent", "boot", names.AgentConnect, 52*ms, 2*ms)
			s.Span(shim, "s", "run", "", task+"Start", 90*ms, 10*ms, app)
		}},
		{"phases within what only waits", "Task/Create runtime 1, VMM start VMM 10, guest boot guest kernel 40, connect guest kernel? 8, Task/Create runtime 1, Task/Start runtime 10", func(s *storytest.Script) {
			s.Span(shim, "s", "create", "", task+"Create", 0, 60*ms, app)
			s.Span(runtime, "s", "connect", "create", "connect", ms, 58*ms)
			s.Span(shim, "s", "boot", "create", names.VMBoot, 0, 51*ms)
			s.Span(shim, "s", "vmm", "boot", names.VMMStart, ms, 10*ms)
			s.Span(shim, "s", "guest", "boot", names.GuestBoot, 11*ms, 40*ms)
			s.Span(shim, "s", "run", "", task+"Start", 60*ms, 10*ms, app)
		}},
		{"helpers and hooks", "Task/Create shim 2, runc create runc 10, check hook 20, runc create runc 8, Task/Create shim 10, Task/Start shim 10", func(s *storytest.Script) {
			role := func(role string) storytest.Change {
				return storytest.With(storytest.Attr(names.Executable, "x"), storytest.Attr(names.ProcessRole, role))
			}
			s.Span(shim, "s", "create", "", task+"Create", 0, 50*ms, app)
			s.Span(shim, "s", "runc", "create", "runc create", 2*ms, 38*ms, role("oci_runtime"))
			s.Span(shim, "s", "hook", "runc", "check", 12*ms, 20*ms, role("hook"))
			s.Span(shim, "s", "run", "", task+"Start", 50*ms, 10*ms, app)
		}},
		{"the agent's clock", "Task/Create runtime 1, create_container agent 4, create_container agent? 4, Task/Create runtime 11, Task/Start runtime 10", func(s *storytest.Script) {
			s.Span(shim, "s", "create", "", task+"Create", 0, 20*ms, app)
			s.Span(runtime, "s", "ttrpc", "create", "create_container", ms, 8*ms, storytest.With(storytest.Attr("code.filepath", "src/runtime-rs/crates/agent/src/kata/agent.rs")))
			s.Span(agent, "s", "agent", "create", "create_container", ms, 4*ms)
			s.Span(shim, "s", "run", "", task+"Start", 20*ms, 10*ms, app)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &storytest.Script{}
			tt.spans(s)
			start := found(t, s)
			if got := text(start); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if start != nil {
				checkPath(t, start)
			}
		})
	}
}

// checkPath holds a path to what is always so.
func checkPath(t testing.TB, s *critical.Start) {
	t.Helper()
	at := s.From
	for _, g := range s.Path {
		if g.From != at || g.To <= g.From || g.Layer == "" {
			t.Fatalf("a segment of %q from %d to %d after %d", g.Layer, g.From, g.To, at)
		}
		at = g.To
	}
	var sum time.Duration
	for _, l := range s.ByLayer() {
		sum += l.Self
	}
	if at != s.To || sum != s.Length() {
		t.Fatalf("the path ends at %d of %d, the layers have %s of %s", at, s.To, sum, s.Length())
	}
}

// TestOnPath: with a span, all that is above it is on the path.
func TestOnPath(t *testing.T) {
	s := &storytest.Script{}
	s.Span(shim, "s", "create", "", task+"Create", 0, 50*ms, app)
	s.Span(shim, "s", "runc", "create", "runc create", 2*ms, 38*ms)
	s.Span(shim, "s", "state", "", task+"State", 0, 40*ms, app)
	s.Span(shim, "s", "run", "", task+"Start", 50*ms, 10*ms, app)
	start := found(t, s)
	onPath := make(map[*waterfall.Node]bool)
	for _, g := range start.Path {
		for n := g.Node; n != nil; n = n.Parent() {
			onPath[n] = true
		}
	}
	for n := range start.Tree.All() {
		if want := n.Title() != "Task/State"; onPath[n] != want {
			t.Errorf("%s: on the path: %v", n.Title(), !want)
		}
	}
}
