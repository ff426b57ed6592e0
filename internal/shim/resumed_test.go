package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

const taskService = "containerd.task.v3.Task"

// guardedPod is a pod whose relay may be killed: this test is its containerd and its
// inner shim, and the relay and the guard between are real processes.
type guardedPod struct {
	*shimHost
	client *ttrpc.Client
	server *ttrpc.Server
	served chan error
	end    func() // ends the inner shim, and returns when the relay has left

	mu    sync.Mutex
	holds map[string]chan struct{} // calls that wait, by method; closed: they go on
	begun map[string]int           // calls by method
}

func newGuardedPod(t *testing.T) *guardedPod { return newGuardedPodWith(t, "") }

// newGuardedPodWith starts one with something more in the configuration.
func newGuardedPodWith(t *testing.T, more string) *guardedPod {
	t.Helper()
	dir := t.TempDir()
	inner := filepath.Join(dir, "inner.sock")
	p := &guardedPod{
		shimHost: newShimHost(t, filepath.Join(dir, "journal"), fmt.Sprintf("for last; do :; done\ncase \"$last\" in start) echo unix://%s;; esac", inner)),
		served:   make(chan error, 1), holds: make(map[string]chan struct{}), begun: make(map[string]int),
	}
	t.Cleanup(func() { p.killGuard() })
	var err error
	if p.server, err = ttrpc.NewServer(); err != nil {
		t.Fatal(err)
	}
	methods := make(map[string]ttrpc.Method)
	for _, name := range []string{"Create", "Start", "Wait", "State", "Kill", "Delete", "Exec"} {
		methods[name] = func(ctx context.Context, unmarshal func(any) error) (any, error) { return p.serve(name, unmarshal) }
	}
	p.server.Register(taskService, methods)
	l := shimtest.Listen(t, inner)
	go func() { p.served <- p.server.Serve(context.Background(), l) }()
	p.end = sync.OnceFunc(p.ends)
	t.Cleanup(p.end)
	p.configure(more)
	out, _, err := p.run("start")
	if err != nil || !strings.HasPrefix(out, "unix://") || strings.Contains(out, inner) {
		t.Fatalf("start: %q, %v", out, err)
	}
	p.dial(strings.TrimPrefix(strings.TrimSpace(out), "unix://"))
	return p
}

// configure adds to the configuration.
func (p *guardedPod) configure(more string) {
	p.t.Helper()
	path := os.Getenv(config.PathEnv)
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(text, more...), 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *guardedPod) dial(address string) {
	conn, err := state.Dial(address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.client = ttrpc.NewClient(conn)
}

// serve answers a call as an inner shim does, when it may.
func (p *guardedPod) serve(name string, unmarshal func(any) error) (any, error) {
	p.mu.Lock()
	p.begun[name]++
	hold := p.holds[name]
	p.mu.Unlock()
	if hold != nil {
		<-hold
	}
	switch name {
	case "Create":
		return &task.CreateTaskResponse{Pid: 42}, unmarshal(new(task.CreateTaskRequest))
	case "Start":
		return &task.StartResponse{Pid: 42}, unmarshal(new(task.StartRequest))
	case "Wait":
		return &task.WaitResponse{ExitStatus: 3}, unmarshal(new(task.WaitRequest))
	case "Kill":
		return nil, errors.Join(unmarshal(new(task.KillRequest)), status.Error(codes.NotFound, "process already finished"))
	case "State":
		return new(task.StateResponse), unmarshal(new(task.StateRequest))
	case "Delete":
		return &task.DeleteResponse{Pid: 42, ExitStatus: 3}, unmarshal(new(task.DeleteRequest))
	}
	return new(emptypb.Empty), unmarshal(new(emptypb.Empty))
}

// hold has calls of a method wait until release.
func (p *guardedPod) hold(method string) (release func()) {
	wait := make(chan struct{})
	p.mu.Lock()
	p.holds[method] = wait
	p.mu.Unlock()
	return sync.OnceFunc(func() {
		p.mu.Lock()
		delete(p.holds, method)
		p.mu.Unlock()
		close(wait)
	})
}

func (p *guardedPod) waits(method string) {
	p.t.Helper()
	shimtest.Eventually(p.t, method+" is with the inner shim", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.begun[method] > 0
	})
}

// call makes a call and returns its error, which is none of the connection's.
func (p *guardedPod) call(method string) error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), testkit.Patience)
	defer cancel()
	var req, answer any = &task.StateRequest{ID: "c1"}, new(task.StateResponse)
	switch method {
	case "Create":
		req, answer = &task.CreateTaskRequest{ID: "c1", Bundle: p.bundle}, new(task.CreateTaskResponse)
	case "Start":
		req, answer = &task.StartRequest{ID: "c1"}, new(task.StartResponse)
	case "Wait":
		req, answer = &task.WaitRequest{ID: "c1"}, new(task.WaitResponse)
	case "Kill":
		req, answer = &task.KillRequest{ID: "c1", Signal: 9}, new(emptypb.Empty)
	case "Delete":
		req, answer = &task.DeleteRequest{ID: "c1"}, new(task.DeleteResponse)
	}
	return p.client.Call(ctx, taskService, method, req, answer)
}

func (p *guardedPod) must(methods ...string) {
	p.t.Helper()
	for _, method := range methods {
		if err := p.call(method); err != nil {
			p.t.Errorf("%s: %v", method, err)
		}
	}
}

// processes returns those that are told to be what, and have the text in an argument.
func processes(what, text string) []int {
	return testkit.Processes(func(args []string) bool { return args[len(args)-1] == what && testkit.With(text)(args) })
}

func (p *guardedPod) relays() []int { return processes(command.Relay, p.bundle) }

// killRelay kills the relay, when it is guarded, and returns when another one is there.
func (p *guardedPod) killRelay() {
	p.t.Helper()
	p.guarded()
	was := p.relays()[0]
	if err := unix.Kill(was, unix.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	shimtest.Eventually(p.t, "another relay is there", func() bool {
		now := p.relays()
		return len(now) == 1 && now[0] != was
	})
}

// turn has the relay turn tracing on or off, as an operator does.
func (p *guardedPod) turn(do string) control.Answer {
	p.t.Helper()
	sockets, _ := filepath.Glob(filepath.Join(p.cfg.Relay.StateDir, "s", "*"+control.Suffix))
	if len(sockets) != 1 {
		p.t.Fatalf("control sockets %q", sockets)
	}
	a, err := control.Ask(p.t.Context(), sockets[0], control.Request{Do: do})
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// killRelayWithoutSuccessor kills the relay and has nobody follow until goOn, which
// returns when another one is there.
func (p *guardedPod) killRelayWithoutSuccessor() (goOn func()) {
	p.t.Helper()
	p.guarded()
	guards := processes(command.Guard, p.cfg.Relay.StateDir)
	if len(guards) != 1 {
		p.t.Fatalf("guards %v", guards)
	}
	testkit.Stop(p.t, guards[0])
	if err := unix.Kill(p.relays()[0], unix.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	shimtest.Eventually(p.t, "the relay is dead", func() bool { return len(p.relays()) == 0 })
	return func() {
		p.t.Helper()
		if err := unix.Kill(guards[0], unix.SIGCONT); err != nil {
			p.t.Fatal(err)
		}
		p.guarded()
	}
}

// guarded waits until the guard has the relay, and of it the listeners, the sentinel, what it
// knows and the connection.
func (p *guardedPod) guarded() {
	p.t.Helper()
	shimtest.Eventually(p.t, "the relay is guarded", func() bool {
		_, all, err := guard.Ask(p.t.Context(), p.cfg.Relay.StateDir)
		return err == nil && len(all) == 1 && all[0].Guarded && all[0].Entries >= 5 && len(p.relays()) == 1 && all[0].PID == p.relays()[0]
	})
}

func (p *guardedPod) killGuard() {
	for _, pid := range processes(command.Guard, p.cfg.Relay.StateDir) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

func (p *guardedPod) ends() {
	p.server.Close()
	<-p.served
	p.client.Close()
	shimtest.Eventually(p.t, "the relay leaves", func() bool {
		_, all, _ := guard.Ask(context.Background(), p.cfg.Relay.StateDir)
		return len(all) == 0 && len(p.relays()) == 0
	})
	if left, _ := filepath.Glob(filepath.Join(p.cfg.Relay.StateDir, "s", "*.sock")); len(left) > 0 {
		p.t.Errorf("left behind: %q", left)
	}
}

// trace returns the spans of the journal and what is counted as lost.
func (p *guardedPod) trace() (spans map[string][]*tracepb.Span, lost map[string]int) {
	p.t.Helper()
	spans, lost = make(map[string][]*tracepb.Span), make(map[string]int)
	if _, err := journal.Scan(p.cfg.Journal.Dir, func(r journal.Record) error {
		if r.Kind == journal.KindDrops {
			drops, err := r.Drops()
			for reason, n := range drops {
				lost[reason] += n
			}
			return err
		}
		td, err := r.Traces()
		if err != nil {
			return err
		}
		for _, rs := range td.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					name := s.Name[strings.LastIndex(s.Name, "/")+1:]
					spans[name] = append(spans[name], s)
				}
			}
		}
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
	return spans, lost
}

// check returns the trace, of which all spans have the same id, and a parent that is
// there. There are these numbers of them, but for those that are counted as lost.
func (p *guardedPod) check(want map[string]int) map[string][]*tracepb.Span {
	p.t.Helper()
	spans, lost := p.trace()
	ids, traces := make(map[string]bool), make(map[string]bool)
	for name, all := range spans {
		for i, s := range all {
			if ids[string(s.SpanId)] {
				if name == names.SandboxStart && i == 1 { // the relay was killed before it had noted that this was written
					spans[name] = all[:1]
					continue
				}
				p.t.Errorf("%s is there twice", s.Name)
			}
			ids[string(s.SpanId)], traces[string(s.TraceId)] = true, true
		}
	}
	missing := 0
	for name, n := range want {
		if got := len(spans[name]); got > n || got < n && name == names.SandboxStart {
			p.t.Errorf("%d spans %q, want %d: %v", got, name, n, spans[name])
		}
		missing += n - len(spans[name])
	}
	// What had ended half a second before the relay is written.
	if missing > lost[losses.RelayDied.String()] || len(lost) > 1 {
		p.t.Errorf("%d spans are not there, counted are %v: %v", missing, lost, spans)
	}
	for _, all := range spans {
		for _, s := range all {
			if len(s.ParentSpanId) > 0 && !ids[string(s.ParentSpanId)] {
				p.t.Errorf("%s has a parent that is not there", s.Name)
			}
		}
	}
	if len(traces) != 1 {
		p.t.Errorf("%d traces, want one: %v", len(traces), spans)
	}
	return spans
}

// TestRelayKilled: whenever the relay is killed, another one goes on: calls get their
// answers, and the trace goes on as well.
func TestRelayKilled(t *testing.T) {
	whole := map[string]int{names.SandboxStart: 1, names.ShimStart: 1, "Create": 1, "Start": 1, "Delete": 1, names.RelayResumed: 1}
	t.Run("at first", func(t *testing.T) {
		p := newGuardedPod(t)
		p.killRelay()
		p.must("Create", "Start", "Delete")
		p.end()
		p.check(whole)
	})
	for _, method := range []string{"Create", "Start"} {
		t.Run("during "+method, func(t *testing.T) {
			p := newGuardedPod(t)
			if method == "Start" {
				p.must("Create")
			}
			release := p.hold(method)
			defer release()
			done := make(chan error, 1)
			go func() { done <- p.call(method) }()
			p.waits(method)
			p.killRelay()
			release()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", method, err)
			}
			if method == "Create" {
				p.must("Start")
			}
			p.must("Delete")
			p.end()
			p.check(whole)
		})
	}
	t.Run("before Start", func(t *testing.T) {
		p := newGuardedPod(t)
		p.must("Create")
		p.killRelay()
		p.must("Start", "Delete")
		p.end()
		p.check(whole)
	})
	t.Run("with a Wait", func(t *testing.T) {
		p := newGuardedPod(t)
		p.must("Create", "Start")
		release := p.hold("Wait")
		defer release()
		done := make(chan error, 1)
		go func() { done <- p.call("Wait") }()
		p.waits("Wait")
		p.killRelay()
		p.killRelay()
		release()
		if err := <-done; err != nil {
			t.Errorf("Wait: %v", err)
		}
		if err := p.call("Kill"); status.Code(err) != codes.NotFound {
			t.Errorf("Kill: %v", err)
		}
		p.must("Delete")
		p.end()
		want := map[string]int{names.RelayResumed: 2, names.ContainerExited: 1, "Kill": 1, names.SandboxStart: 1}
		// What ends belongs to a healthy life, also if another process has seen it begin.
		if kill := p.check(want)["Kill"]; len(kill) == 1 && kill[0].Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			t.Errorf("Kill is an error: %v", kill[0])
		}
	})
	t.Run("in a window", func(t *testing.T) {
		p := newGuardedPodWith(t, "[trace]\nmode = \"dynamic\"\n")
		p.must("Create")
		on := p.turn(control.DoOn)
		p.killRelay()
		p.must("Start")
		if a := p.turn(control.DoOn); a.Changed || a.Window.TraceID != on.Window.TraceID || len(a.Containers) != 1 {
			t.Errorf("after it: %+v, want the window %+v", a, on.Window)
		}
		if a := p.turn(control.DoOff); !a.Changed || a.Window.TraceID != on.Window.TraceID {
			t.Errorf("off: %+v", a)
		}
		p.must("Delete") // which is not recorded
		p.end()
		spans := p.check(map[string]int{names.SwitchedOn: 1, names.SwitchedOff: 1, "Start": 1, names.RelayResumed: 1, "Delete": 0})
		if len(spans[names.SwitchedOn]) != 1 || len(spans[names.SwitchedOff]) != 1 {
			t.Errorf("the window is %v to %v", spans[names.SwitchedOn], spans[names.SwitchedOff])
		}
	})
	t.Run("leaving", func(t *testing.T) {
		p := newGuardedPod(t)
		p.must("Create", "Start")
		p.guarded()
		was := p.relays()[0]
		testkit.Stop(t, was)
		p.server.Close()
		<-p.served
		if err := errors.Join(unix.Kill(was, unix.SIGCONT), unix.Kill(was, unix.SIGKILL)); err != nil {
			t.Fatal(err)
		}
		p.served <- nil // for end
		p.end()
		p.check(map[string]int{names.SandboxStart: 1, "Create": 1, "Start": 1})
	})
}
