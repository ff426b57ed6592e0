package relay

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/shim/kata"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

const (
	// closeWait bounds how long the relay waits, once the inner shim is gone, for
	// containerd to close its connections.
	closeWait = 10 * time.Second
	// settleTime is long enough to accept a connection that has been made.
	settleTime = 100 * time.Millisecond
)

// Options are what a relay is made of.
type Options struct {
	Config config.Config
	Who    telemetry.Identity
	// Container is the id that the inner shim was started with.
	Container string
	Log       *slog.Logger
}

// Process is the process between containerd and one inner shim. It ends when the inner
// shim has, and for no other reason.
type Process struct {
	Options
	tel *telemetry.Telemetry

	root     trace.SpanContext // of the sandbox's own trace
	paths    state.Paths
	listener *listener
	bound    os.FileInfo // the listener's socket file
	served   chan struct{}
	sentinel *net.UnixConn
	state    state.State
	sandbox  *sandbox
	controls *control.Server // nil unless tracing is dynamic
	kata     *kata.Observer  // nil unless it is a sandbox of Kata's
}

// Prepare does what needs no knowledge of the inner shim's address, while the inner shim
// starts.
func Prepare(o Options) (*Process, error) {
	p := &Process{Options: o}
	limitMemory()
	raiseOOMScore(p.Log)
	p.root = export.NewRoot(context.Background(), p.Config.Trace)
	p.Who.Run = p.root.TraceID()
	tel, err := telemetry.Open(p.Config, p.Who, p.Log)
	if err != nil {
		return nil, err
	}
	p.tel = tel
	p.kata = kata.New(kata.Options{Config: p.Config, Who: p.Who, Container: p.Container, Telemetry: tel, Log: p.Log})
	return p, nil
}

// Take connects to the inner shim, whose start began when it says, and listens in its
// place.
func (p *Process) Take(innerSock string, started time.Time) (st state.State, err error) {
	p.paths = state.PathsOf(p.Config.Relay.StateDir, innerSock)
	if p.sentinel, err = state.Dial(innerSock); err != nil {
		return st, fmt.Errorf("connect to the inner shim: %w", err)
	}
	cred, err := host.Peer(p.sentinel)
	if err != nil {
		return st, fmt.Errorf("connect to the inner shim: %w", err)
	}
	p.state = state.State{
		Version:   state.Version,
		Trace:     state.NewTraceContext(p.root),
		Started:   started,
		Sandbox:   p.Who.Sandbox,
		Namespace: p.Who.Namespace,
		Inner:     p.Who.Inner,
		InnerSock: innerSock,
		InnerPID:  int(cred.Pid),
		RelaySock: p.paths.Socket,

		Pod:          p.Who.Notes[state.CRISandboxName],
		PodNamespace: p.Who.Notes[state.CRISandboxNamespace],
		PodUID:       p.Who.Notes[state.CRISandboxUID],
	}
	if p.Config.Trace.Mode == "dynamic" {
		p.state.Dynamic, p.state.Trace.Sampled = true, false
	}
	if p.listener, err = listenUnix(p.paths.Socket); err != nil {
		return st, err
	}
	if p.bound, err = os.Lstat(p.paths.Socket); err != nil {
		return st, fmt.Errorf("relay listen: %w", err)
	}
	return p.state, p.state.Write(p.paths.State)
}

// Serve relays in the background.
func (p *Process) Serve() {
	propagator, err := middleware.Propagator(p.Config.Trace.Propagators...)
	if err != nil {
		p.Log.Warn("contexts are not propagated", "error", err)
	}
	p.sandbox = newSandbox(p.tel.Tracer, p.tel.Provider.ForceFlush, p.Log, p.state, p.paths.State, p.Config.Trace.Join == "sandbox")
	p.sandbox.setPod = p.tel.SetPod
	if p.state.Dynamic {
		p.sandbox.switcher = &switcher{sandbox: p.sandbox, cfg: p.Config.Trace}
	}
	var observers []middleware.Observer
	if p.kata != nil {
		p.sandbox.windows = p.kata
		p.kata.Start(p.sandbox, p.state)
		observers = append(observers, p.kata)
	}
	observers = append(observers, p.sandbox)
	relay := middleware.NewRelay(
		middleware.WithSwitch(p.sandbox.Switch()),
		middleware.WithTracerProvider(p.tel.Provider),
		middleware.WithPropagator(propagator),
		middleware.WithQuiet(time.Duration(p.Config.Trace.Slow), p.Config.Trace.Quiet...),
		middleware.WithObserver(observers...),
		middleware.WithExpected(p.sandbox.lives.Expected),
		middleware.WithErrorHandler(func(err error) { p.Log.Warn("relay", "error", err) }),
	)
	dial := func(context.Context) (net.Conn, error) { return state.Dial(p.state.InnerSock) }
	p.served = make(chan struct{})
	go func() {
		defer close(p.served)
		_ = relay.Serve(context.Background(), p.listener, dial)
	}()
	if p.state.Dynamic {
		p.controls = p.startControl()
	} else {
		go p.tel.Keeper.EnsureShipped() // which looks at the disk; Close waits for it
	}
}

// Run returns when the inner shim is gone, and with it all that the relay was there for.
func (p *Process) Run() {
	rest, stop := context.WithCancel(context.Background())
	go Settle(rest)
	p.watch()
	stop()
	p.leave()
}

// Abandoned reports whether nobody knows of this relay, since its start was killed, and
// then removes its files. Another start may have found it before.
func (p *Process) Abandoned() bool {
	release, err := p.paths.Acquire(closeWait)
	if err != nil {
		return false
	}
	defer release()
	// Who has found it has connected to it, holding the lock.
	time.Sleep(settleTime)
	if p.listener.accepted.Load() > 0 {
		return false
	}
	p.closeListeners()
	if now, err := os.Lstat(p.paths.Socket); err == nil && os.SameFile(now, p.bound) {
		p.paths.Remove()
	}
	return true
}

// watch returns when the inner shim is gone. The relay's own connection to it,
// on which nothing is ever said, ends with it; if it ends and the same shim still
// answers, the connection alone was lost.
func (p *Process) watch() {
	buf := make([]byte, 1)
	for {
		for {
			if _, err := p.sentinel.Read(buf); err != nil {
				break
			}
		}
		p.sentinel.Close()
		conn, err := state.Dial(p.state.InnerSock)
		if err != nil {
			return
		}
		if cred, err := host.Peer(conn); err != nil || int(cred.Pid) != p.state.InnerPID {
			conn.Close()
			return
		}
		p.sentinel = conn
		time.Sleep(100 * time.Millisecond)
	}
}

// leave ends the relay after the inner shim: no new connections, the old ones to
// their end, the last spans, and nothing left behind.
func (p *Process) leave() {
	ended := time.Now()
	if release, err := p.paths.Acquire(closeWait); err == nil {
		p.closeListeners()
		p.sandbox.leave()
		if now, err := os.Lstat(p.paths.Socket); err == nil && !os.SameFile(now, p.bound) {
			// A relay to a later shim on this address has taken over.
		} else {
			p.paths.Remove()
		}
		release()
	} else {
		p.Log.Warn("relay leaves its files behind", "error", err)
		p.closeListeners()
	}
	p.state.RemoveLeakedSocket()
	select {
	case <-p.served:
	case <-time.After(closeWait):
	}
	if p.kata != nil {
		p.kata.Close()
	}
	p.sandbox.neverStarted(ended)
	if p.sandbox.switcher != nil {
		p.sandbox.switcher.close()
	}
	p.tel.Close(p.Log, export.Linger)
}

func (p *Process) closeListeners() {
	p.listener.Close()
	if p.controls != nil {
		p.controls.Close()
	}
}

// raiseOOMScore makes the kernel prefer the relay to containerd, as shims do for
// themselves (containerd pkg/shim, AdjustOOMScore): the parent's score, which is
// still ours, and one more.
func raiseOOMScore(log *slog.Logger) {
	const path, highest = "/proc/self/oom_score_adj", 1000
	text, err := os.ReadFile(path)
	if err == nil {
		var score int
		if score, err = strconv.Atoi(strings.TrimSpace(string(text))); err == nil && score < highest {
			err = os.WriteFile(path, []byte(strconv.Itoa(score+1)), 0)
		}
	}
	if err != nil {
		log.Debug("set own OOM score", "error", err)
	}
}
