package shim

import (
	"context"
	"encoding/json"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/shim/control"
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
	// gcPercent trades time, of which the relay needs little, for memory, of which
	// there is a relay's worth in every pod.
	gcPercent = 25
)

// relayProcess is the process between containerd and one inner shim. It ends when
// the inner shim has, and for no other reason.
type relayProcess struct {
	command
	cfg   config.Config
	inner string
	log   *slog.Logger
	tel   *telemetry.Telemetry

	root     trace.SpanContext // of the sandbox's own trace
	who      telemetry.Identity
	paths    state.Paths
	listener *listener
	bound    os.FileInfo // the listener's socket file
	sentinel *net.UnixConn
	state    state.State
	sandbox  *sandbox
	controls *control.Server // nil unless tracing is dynamic
	runtimes *runtimeSpans   // nil unless the runtime's spans are received
}

// relay is the life of the relay process.
func (c command) relay(cfg config.Config, inner string, log *slog.Logger) int {
	// Signals are for the inner shim to act upon: its end is ours.
	signal.Ignore(unix.SIGPIPE, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	redirectStderr(c.bundle)
	stdlog.SetOutput(os.Stderr) // which is a log from here on
	start, err := connFromFD(handoverFD)
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay is run by start, not by hand:", err)
		return 2
	}
	defer start.Close()
	r := &relayProcess{command: c, cfg: cfg, inner: inner, log: log}
	if c.action == actionRelay {
		err = r.prepare()
	}
	var a assignment
	if derr := json.NewDecoder(start).Decode(&a); derr != nil {
		return 0 // not needed after all
	}
	if a.Record != nil {
		err = a.Record.make(cfg, log)
		_ = json.NewEncoder(start).Encode(reportOf(err)) // who asked may not have waited
		return 0
	}
	if err == nil {
		err = r.take(a)
	}
	if err != nil {
		_ = json.NewEncoder(start).Encode(reportOf(err))
		return 1
	}
	served := r.serve()
	if err := json.NewEncoder(start).Encode(report{State: &r.state}); err != nil {
		log.Error("relay hand-over", "error", err)
		if r.abandoned() {
			return 1
		}
	}
	start.Close()
	rest, stop := context.WithCancel(context.Background())
	go settle(rest)
	r.watch()
	stop()
	r.leave(served)
	return 0
}

// abandoned reports whether nobody knows of this relay, since its start was killed, and
// then removes its files. Another start may have found it before.
func (r *relayProcess) abandoned() bool {
	release, err := r.paths.Acquire(closeWait)
	if err != nil {
		return false
	}
	defer release()
	// Who has found it has connected to it, holding the lock.
	time.Sleep(settleTime)
	if r.listener.accepted.Load() > 0 {
		return false
	}
	r.closeListeners()
	if now, err := os.Lstat(r.paths.Socket); err == nil && os.SameFile(now, r.bound) {
		r.paths.Remove()
	}
	return true
}

// prepare does what needs no knowledge of the inner shim's address, while the
// inner shim starts.
func (r *relayProcess) prepare() error {
	raiseOOMScore(r.log)
	r.root = export.NewRoot(context.Background(), r.cfg.Trace)
	r.who = r.identity(r.inner)
	r.who.Run = r.root.TraceID()
	tel, err := telemetry.Open(r.cfg, r.who, r.log)
	if err != nil {
		return err
	}
	r.tel = tel
	r.runtimes = r.openRuntimes()
	return nil
}

// take connects to the inner shim and listens in its place.
func (r *relayProcess) take(a assignment) (err error) {
	r.paths = state.PathsOf(r.cfg.Relay.StateDir, a.InnerSock)
	if r.sentinel, err = state.Dial(a.InnerSock); err != nil {
		return fmt.Errorf("connect to the inner shim: %w", err)
	}
	cred, err := state.Peer(r.sentinel)
	if err != nil {
		return fmt.Errorf("connect to the inner shim: %w", err)
	}
	r.state = state.State{
		Version:   state.Version,
		Trace:     state.NewTraceContext(r.root),
		Started:   a.Started,
		Sandbox:   r.who.Sandbox,
		Namespace: r.namespace,
		Inner:     r.inner,
		InnerSock: a.InnerSock,
		InnerPID:  int(cred.Pid),
		RelaySock: r.paths.Socket,

		Pod:          r.who.Notes[state.CRISandboxName],
		PodNamespace: r.who.Notes[state.CRISandboxNamespace],
		PodUID:       r.who.Notes[state.CRISandboxUID],
	}
	if r.cfg.Trace.Mode == "dynamic" {
		r.state.Dynamic, r.state.Trace.Sampled = true, false
	}
	if r.listener, err = listenUnix(r.paths.Socket); err != nil {
		return err
	}
	if r.bound, err = os.Lstat(r.paths.Socket); err != nil {
		return fmt.Errorf("relay listen: %w", err)
	}
	return r.state.Write(r.paths.State)
}

// serve relays in the background. The channel is closed when the last connection
// has ended after the listener was closed.
func (r *relayProcess) serve() <-chan struct{} {
	propagator, err := middleware.Propagator(r.cfg.Trace.Propagators...)
	if err != nil {
		r.log.Warn("contexts are not propagated", "error", err)
	}
	r.sandbox = newSandbox(r.tel.Tracer, r.tel.Provider.ForceFlush, r.log, r.state, r.paths.State, r.cfg.Trace.Join == "sandbox")
	r.sandbox.setPod = r.tel.SetPod
	if r.state.Dynamic {
		r.sandbox.switcher = &switcher{sandbox: r.sandbox, cfg: r.cfg.Trace}
	}
	observers := []middleware.Observer{r.sandbox}
	if r.sandbox.agents = r.startAgents(); r.sandbox.agents != nil {
		observers = slices.Insert(observers, 0, middleware.Observer(r.sandbox.agents))
	}
	relay := middleware.NewRelay(
		r.sandbox.switched(),
		middleware.WithTracerProvider(r.tel.Provider),
		middleware.WithPropagator(propagator),
		middleware.WithQuiet(time.Duration(r.cfg.Trace.Slow), r.cfg.Trace.Quiet...),
		middleware.WithObserver(observers...),
		middleware.WithExpected(r.sandbox.lives.Expected),
		middleware.WithErrorHandler(func(err error) { r.log.Warn("relay", "error", err) }),
	)
	dial := func(context.Context) (net.Conn, error) { return state.Dial(r.state.InnerSock) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = relay.Serve(context.Background(), r.listener, dial)
	}()
	if r.state.Dynamic {
		r.controls = r.startControl()
	} else {
		go r.tel.Keeper.Ensure() // which looks at the disk; Close waits for it
	}
	return done
}

// watch returns when the inner shim is gone. The relay's own connection to it,
// on which nothing is ever said, ends with it; if it ends and the same shim still
// answers, the connection alone was lost.
func (r *relayProcess) watch() {
	buf := make([]byte, 1)
	for {
		for {
			if _, err := r.sentinel.Read(buf); err != nil {
				break
			}
		}
		r.sentinel.Close()
		conn, err := state.Dial(r.state.InnerSock)
		if err != nil {
			return
		}
		if cred, err := state.Peer(conn); err != nil || int(cred.Pid) != r.state.InnerPID {
			conn.Close()
			return
		}
		r.sentinel = conn
		time.Sleep(100 * time.Millisecond)
	}
}

// leave ends the relay after the inner shim: no new connections, the old ones to
// their end, the last spans, and nothing left behind.
func (r *relayProcess) leave(served <-chan struct{}) {
	ended := time.Now()
	if release, err := r.paths.Acquire(closeWait); err == nil {
		r.closeListeners()
		r.sandbox.leave()
		if now, err := os.Lstat(r.paths.Socket); err == nil && !os.SameFile(now, r.bound) {
			// A relay to a later shim on this address has taken over.
		} else {
			r.paths.Remove()
		}
		release()
	} else {
		r.log.Warn("relay leaves its files behind", "error", err)
		r.closeListeners()
	}
	r.state.RemoveLeakedSocket()
	select {
	case <-served:
	case <-time.After(closeWait):
	}
	if r.runtimes != nil {
		r.runtimes.close()
	}
	if r.sandbox.agents != nil {
		r.sandbox.agents.close()
	}
	r.sandbox.neverStarted(ended)
	if r.sandbox.switcher != nil {
		r.sandbox.switcher.close()
	}
	r.tel.Close(r.log, export.Linger)
}

func (r *relayProcess) closeListeners() {
	r.listener.Close()
	if r.controls != nil {
		r.controls.Close()
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
