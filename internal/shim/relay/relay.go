package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/shim/evidence"
	"github.com/shimtrace/shimtrace/internal/shim/helpers"
	"github.com/shimtrace/shimtrace/internal/shim/kata"
	"github.com/shimtrace/shimtrace/internal/shim/processors"
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
	// Source is where Config comes from, to be read again; nil: the relay does not follow
	// the configuration. Report is what was wrong with it. Level is the level of the
	// relay's log.
	Source *config.Source
	Report config.Report
	Level  *slog.LevelVar
	Who    state.Identity
	// Container is the id that the inner shim was started with.
	Container string
	Log       *slog.Logger
	// Guard says where the guard is and how a successor of this process is started. The
	// zero value: there is none.
	Guard guard.ClientOptions
}

// Process is the process between containerd and one inner shim. It ends when the inner
// shim has, and for no other reason.
type Process struct {
	Options
	tel *telemetry.Telemetry

	logs     *telemetry.Correlation
	root     trace.SpanContext // the sandbox trace's
	cause    trace.SpanContext // what caused the pod; invalid: not known
	paths    state.Paths
	listener *listener
	bound    vmmdir.ID // the listener's socket file
	sentinel *net.UnixConn
	state    state.State
	serving  serving
	sandbox  *sandbox
	controls *control.Server                  // nil: the relay cannot be asked
	kata     *kata.Observer                   // nil unless it is a sandbox of Kata's
	helpers  atomic.Pointer[helpers.Observer] // nil unless they are recorded
	usage    *evidence.Usage                  // of long calls
	pressure evidence.Pressure                // when the relay began
	memory   *memory                          // nil: another process would not know what this one does
	guarded  guarded
	following
	unsaved bool          // Run is to begin saving
	known   chan struct{} // closed when it is clear whether there is a kata.Observer

	// Of a process that goes on for another one:
	resumed   int       // processes before this one
	lost      int64     // spans that the last one has not written
	lostHeld  int64     // and those of the agent and the runtime that waited in it
	controlAt *listener // for control, which the last one has left; nil: it has left none
	broken    []string  // entries of connections that cannot go on
	untraced  bool      // nothing but bytes is relayed
	turning   func()    // stops turning agents away; nil: none are
}

// Prepare does what needs no knowledge of the inner shim's address, while the inner shim
// starts.
func Prepare(o Options) (*Process, error) {
	p := &Process{Options: o, known: make(chan struct{}), pressure: evidence.ReadPressure(procDir)}
	p.begin(o)
	close(p.known)
	p.Log, p.logs = telemetry.Correlate(p.Log)
	most := processors.Begin()
	raiseOOMScore(p.Log)
	var err error
	if p.cause, err = telemetry.Cause(p.Who.Notes, p.Config.Trace.Annotations); err != nil {
		p.Log.Warn("what caused this pod is not known", "error", err)
	}
	p.root = telemetry.NewRoot(p.Config.Trace, p.cause)
	p.Who.Run = telemetry.RunOf(p.root, p.cause)
	if p.Config.Trace.Mode != "dynamic" {
		p.logs.To(func() trace.SpanContext { return p.root })
	}
	var waiting, held *atomic.Int64
	if p.memory, err = newMemory(); err != nil {
		p.Log.Warn("another relay that goes on for this one would know nothing of the sandbox", "error", err)
	} else {
		waiting, held = p.memory.waiting(), p.memory.held()
	}
	tel, err := telemetry.Open(p.Config, p.Who, p.Log, waiting)
	if err != nil {
		return nil, err
	}
	p.tell(tel)
	p.kata = kata.New(kata.Options{
		Config: p.Config, Who: p.Who, Container: p.Container, Telemetry: tel, Log: p.Log, Guard: &p.guarded, Held: held,
	})
	p.useProcessors(most)
	return p, nil
}

// useProcessors has frames pass on one processor. Where the spans of an agent or a runtime are
// placed beside them, these have another.
func (p *Process) useProcessors(most processors.Most) {
	if p.kata == nil {
		most.Use(1)
	} else {
		most.Use(2)
	}
}

// tell has the process's spans go to tel.
func (p *Process) tell(tel *telemetry.Telemetry) {
	p.tel = tel
	p.guarded.lost = p.died
}

// Beginning is what is known of the sandbox before the inner shim has an address.
func (p *Process) Beginning() state.State {
	st := state.State{
		Version:   state.Version,
		Trace:     state.NewTraceContext(p.root),
		Cause:     state.CauseContext(p.cause),
		Sandbox:   p.Who.Sandbox,
		Namespace: p.Who.Namespace,
		Inner:     p.Who.Inner,

		Pod:          p.Who.Notes[state.CRISandboxName],
		PodNamespace: p.Who.Notes[state.CRISandboxNamespace],
		PodUID:       p.Who.Notes[state.CRISandboxUID],
	}
	if p.Config.Trace.Mode == "dynamic" {
		st.Dynamic, st.Trace.Sampled = true, false
	}
	return st
}

// Take makes the process the relay of the sandbox: with the socket that listens in the
// inner shim's place, and a connection to the inner shim. It takes both over.
func (p *Process) Take(st state.State, listener, sentinel *os.File) error {
	p.state, p.paths = st, state.PathsOf(p.Config.Relay.StateDir, st.InnerSock)
	l, err := host.UnixListener(listener)
	if err != nil {
		sentinel.Close()
		return fmt.Errorf("take the listening socket over: %w", err)
	}
	p.listener = newListener(l)
	if p.sentinel, err = host.UnixConn(sentinel); err != nil {
		return fmt.Errorf("take the connection to the inner shim over: %w", err)
	}
	if p.bound, _, err = vmmdir.Identify(p.paths.Socket); err != nil {
		p.Log.Warn("the relay's socket is not where it was", "error", err)
	}
	return nil
}

// Serve relays in the background.
func (p *Process) Serve() {
	p.guarded.Store(guard.Entry{Name: entryListener, Kind: guard.Listener, Files: []syscall.Conn{p.listener}})
	p.keepSentinel()
	if p.memory != nil {
		p.guarded.Store(guard.Entry{Name: entryMemory, Files: []syscall.Conn{p.memory.file}})
	}
	p.know(saved{Sandbox: savedSandbox{State: p.state}})
	p.accept(p.relay())
	p.unsaved = true
	if p.state.Dynamic {
		p.serveControl(nil)
	}
}

// know sets up what is known of the sandbox, beginning with what another process knew.
func (p *Process) know(was saved) {
	p.sandbox = newSandbox(p.tel.Tracer, p.tel.FlushOwn, p.Log, p.state, p.paths.State, p.Config.Trace.Join == "sandbox")
	p.sandbox.setPod = p.tel.SetPod
	p.sandbox.started = p.tel.Started
	p.sandbox.switcher = newSwitcher(p.sandbox, p.Config.Trace, was.mode(p.state))
	sandbox := p.sandbox
	p.logs.To(sandbox.inLogs)
	if p.kata != nil {
		p.sandbox.windows = p.kata
		p.kata.Start(p.sandbox, p.state)
	}
	p.gatherEvidence()
	p.observeHelpers(was.Helpers)
	p.sandbox.restore(was.Sandbox)
	p.sandbox.switcher.settle() // the mode may have been changed meanwhile
}

// beginSaving has what is known saved from now on.
func (p *Process) beginSaving() {
	if p.memory != nil {
		p.sandbox.saver.begin(p.save)
	}
}

// save writes what the process knows into its memory.
func (p *Process) save() {
	all := saved{Version: savedVersion, Who: p.Who, Container: p.Container, Resumed: p.resumed, Settings: p.current.Load().settings(p.sandbox.switcher.modeNow()), Sandbox: p.sandbox.saved()}
	var err error
	if p.kata != nil {
		all.Kata, err = p.kata.Save()
	}
	if h := p.helpers.Load(); h != nil && err == nil {
		all.Helpers, err = h.Save()
	}
	if err == nil {
		err = json.NewEncoder(p.memory).Encode(all) // in contrast to Marshal, without a copy
	}
	if err != nil {
		p.Log.Warn("another relay that goes on for this one would know less", "error", err)
	}
}

// relay returns what relays the shim's calls.
func (p *Process) relay() *middleware.Relay {
	var observers []middleware.Observer
	if p.kata != nil {
		observers = append(observers, p.kata)
	}
	if h := p.helpers.Load(); h != nil {
		observers = append(observers, h)
	}
	observers = append(observers, p.usage, p.sandbox)
	return middleware.NewRelay(append(p.changeable(),
		middleware.WithSwitch(p.sandbox.Switch()),
		middleware.WithTracerProvider(p.tel.Provider),
		middleware.WithObserver(observers...),
		middleware.WithExpected(p.sandbox.lives.Expected),
		middleware.WithErrorHandler(func(err error) { p.Log.Warn("relay", "error", err) }),
		p.guarded.Handover(entryConn),
	)...)
}

// Run returns when the inner shim is gone, and with it all that the relay was there for.
func (p *Process) Run() {
	limitMemory() // not before, as what follows: containerd would wait for a processor
	if p.unsaved {
		p.beginSaving()
		if !p.state.Dynamic {
			go p.tel.Keeper.EnsureShipped() // which looks at the disk; Close waits for it
		}
	}
	if p.controls == nil && !p.untraced {
		p.serveControl(nil)
	}
	if p.Guard.Dir != "" && p.Guard.Successor == nil {
		p.register()
	}
	rest, stop := context.WithCancel(context.Background())
	go settle(rest)
	go p.follow(rest)
	go p.followHelpers(rest)
	p.watch()
	stop()
	p.leave()
}

// client returns what the guard is to know of the relay.
func (p *Process) client() guard.ClientOptions {
	o := p.Guard
	o.Who.ID, o.Who.Formats = p.state.RelaySock, ownFormats()
	if p.state.Sandbox != "" { // a successor learns it later, and has it from the guard
		o.Who.Sandbox, o.Who.Pod = p.state.Sandbox, p.state.Pod
		if root := p.state.Trace.SpanContext(); root.IsSampled() {
			o.Who.TraceID, o.Who.SpanID = root.TraceID().String(), root.SpanID().String()
		}
	}
	o.HandOver = p.handOver
	o.Process, o.Unrecorded = p.helperReported, p.helpersUnrecorded
	o.Watching, o.Changed = p.watched, p.changed
	if kata.Receives(p.Config.Agent.Receive, p.Who.Inner) {
		o.VSOCK = p.takeVSOCK
	}
	o.Logf = func(format string, args ...any) { p.Log.Warn(fmt.Sprintf(format, args...)) }
	return o
}

// takeVSOCK takes a VM's connection, unread.
func (p *Process) takeVSOCK(f *os.File, cid uint32) {
	go func() {
		<-p.known
		if p.kata == nil {
			f.Close()
			return
		}
		p.kata.TakeVSOCK(f, cid)
	}()
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
	if now, _, err := vmmdir.Identify(p.paths.Socket); err == nil && now == p.bound {
		p.paths.Remove()
	}
	return true
}

// keepSentinel has the guard keep the sentinel, with what is needed in any case.
func (p *Process) keepSentinel() {
	data := essentials{InnerSock: p.state.InnerSock, InnerPID: p.state.InnerPID, RelaySock: p.state.RelaySock, Socket: p.bound}.data()
	p.guarded.Store(guard.Entry{Name: entrySentinel, Data: data, Files: []syscall.Conn{p.sentinel}})
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
		p.keepSentinel()
		time.Sleep(100 * time.Millisecond)
	}
}

// leave ends the relay after the inner shim: no new connections, the old ones to
// their end, the last spans, and nothing left behind.
func (p *Process) leave() {
	ended := time.Now()
	if release, err := p.paths.Acquire(closeWait); err == nil {
		p.closeListeners()
		if p.sandbox != nil {
			p.sandbox.leave()
		}
		if now, _, err := vmmdir.Identify(p.paths.Socket); err == nil && now != p.bound {
			// A relay to a later shim on this address has taken over.
		} else if !p.untraced { // else delete finds what there is to record
			p.paths.Remove()
		}
		release()
	} else {
		p.Log.Warn("relay leaves its files behind", "error", err)
		p.closeListeners()
	}
	p.state.RemoveLeakedSocket()
	p.serving.wait(closeWait)
	p.end(ended)
	p.guarded.Leave()
}

// end makes the last spans, and writes out what is left.
func (p *Process) end(ended time.Time) {
	if p.turning != nil {
		p.turning()
	}
	if p.untraced {
		return
	}
	if p.kata != nil {
		p.kata.Close()
	}
	if h := p.helpers.Load(); h != nil {
		h.Close()
	}
	p.sandbox.neverStarted(ended)
	p.sandbox.switcher.close()
	p.tel.Close(p.Log, export.Linger)
}

func (p *Process) closeListeners() {
	if p.listener != nil {
		p.listener.Close()
		p.guarded.Remove(entryListener)
	}
	if p.controls != nil {
		p.controls.Close()
		p.guarded.Remove(entryControl)
	}
}

// raiseOOMScore makes the kernel, when it is out of memory, kill the relay rather than
// containerd, as shims do for themselves (containerd pkg/shim, AdjustOOMScore): the
// parent's score, which is still ours, and one more.
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
