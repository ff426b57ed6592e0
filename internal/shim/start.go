package shim

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/standby"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// starter carries out one start.
type starter struct {
	wrapper
	cfg   config.Config
	notes state.Annotations
	log   *slog.Logger
	began time.Time
	spans []state.Timing // what start spent its time on
}

// start runs the inner shim's start and puts the relay in front of it. Whatever
// goes wrong with the relay, containerd gets the inner shim's answer.
func (w wrapper) start(cfg config.Config, log *slog.Logger) int {
	s := &starter{wrapper: w, cfg: cfg, log: log, began: time.Now()}
	s.notes, _ = state.ReadAnnotations(s.Bundle) // no spec, no pod: the spans say less
	out, relay, err := s.runInner()
	if err != nil {
		os.Stdout.Write(out)
		s.failed(err, relay)
		return exitCode(err)
	}
	reply := out
	a := s.attachInTime(out, relay)
	if a.err != nil {
		s.log.Warn("this container is not traced: containerd is given the inner shim", "error", a.err)
		if err := state.LeaveInner(s.Bundle, s.cfg, s.Inner); err != nil {
			s.log.Debug("which shim was started is not in the bundle", "error", err)
		}
	} else {
		reply = a.reply
	}
	if _, err := os.Stdout.Write(reply); err != nil {
		s.log.Error("answer containerd", "error", err)
		return 1
	}
	a.relay.Answered()
	return 0
}

// runInner runs the inner shim's start with our standard input and error, and returns
// what it wrote to its standard output, and the relay process that comes up meanwhile.
func (s *starter) runInner() ([]byte, *spawning, error) {
	t := state.Timing{Name: names.InnerStart, Start: time.Now()}
	lock := state.StartLock(state.RelaysDir(s.cfg.Relay.StateDir), s.Namespace, s.notes.SandboxID(s.ID))
	release := func() {}
	if state.DirAnswers(s.cfg.Relay.StateDir) {
		release, _ = state.LockStart(lock, unix.LOCK_SH, state.StartPatience)
	}
	var relay *spawning
	out, err := s.wrapper.runInner(func() { relay = s.spawnEarly() })
	release()
	t.End = time.Now()
	if err != nil {
		t.Error = err.Error()
	}
	s.spans = append(s.spans, t)
	return out, relay, err
}

// spawning is a relay process on its way.
type spawning struct {
	done    chan struct{}
	standby *standby.Standby
	err     error
}

// spawnEarly starts a relay process beside the inner shim's start, unless the
// container is one that comes into a pod: its relay is there already, most likely.
func (s *starter) spawnEarly() *spawning {
	sp := &spawning{done: make(chan struct{})}
	go func() {
		defer close(sp.done)
		if s.notes[state.CRIContainerType] != "container" {
			sp.standby, sp.err = standby.Spawn(s.Line, command.Relay)
		}
	}()
	return sp
}

// wait returns the relay process, nil if there is none.
func (sp *spawning) wait() *standby.Standby {
	<-sp.done
	return sp.standby
}

// attachTime is how much longer than the relay's ready_timeout an attach may take.
// Everything that an attach waits for has a bound of its own, except the state directory.
const attachTime = 5 * time.Second

// attached is what has become of an attempt to put a relay in front of the inner shim.
type attached struct {
	reply []byte
	relay *standby.Standby // nil if the sandbox has had one
	err   error
}

// attachInTime is attach, unless the state directory's file system hangs.
func (s *starter) attachInTime(out []byte, relay *spawning) attached {
	silent := attached{err: fmt.Errorf("the state directory %s does not answer", s.cfg.Relay.StateDir)}
	if !state.DirAnswers(s.cfg.Relay.StateDir) {
		return silent
	}
	done := make(chan attached, 1)
	go func() { done <- s.attach(out, relay) }()
	select {
	case a := <-done:
		return a
	case <-time.After(time.Duration(s.cfg.Relay.ReadyTimeout) + attachTime):
		return silent
	}
}

// attach puts a relay in front of the shim that out names and returns the answer
// that names the relay instead, and the relay if it is a new one.
func (s *starter) attach(out []byte, relay *spawning) (a attached) {
	waiting := relay.wait()
	defer func() {
		if a.relay != waiting {
			waiting.Discard()
		}
	}()
	inner, err := parseAnswer(out)
	if err != nil {
		return attached{err: err}
	}
	innerSock, err := inner.socketPath()
	if err != nil {
		return attached{err: err}
	}
	if relay.err != nil {
		return attached{err: relay.err}
	}
	p := state.PathsOf(s.cfg.Relay.StateDir, innerSock)
	if err := p.Create(); err != nil {
		return attached{err: err}
	}
	deadline := time.Now().Add(time.Duration(s.cfg.Relay.ReadyTimeout))
	st, a := s.findRelay(p, innerSock, waiting, deadline)
	if a.err != nil {
		return a
	}
	address := "unix://" + st.RelaySock
	if err := replaceAddress(s.Bundle, address); err != nil {
		s.log.Warn("containerd will go to the inner shim after a restart", "error", err)
	}
	a.reply = inner.encode(address)
	return a
}

// errLeaving says that a relay is there which belongs to an earlier inner shim on the same
// address and has yet to notice that this shim is gone.
var errLeaving = errors.New("the relay of an earlier shim on the same address is still there")

// findRelay finds the relay in front of the inner socket, which is the one that another
// container's start has made, or else the given one.
func (s *starter) findRelay(p state.Paths, innerSock string, relay *standby.Standby, deadline time.Time) (*state.State, attached) {
	for {
		st, a := s.tryRelay(p, innerSock, relay, deadline)
		if !errors.Is(a.err, errLeaving) || time.Now().After(deadline) {
			return st, a
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *starter) tryRelay(p state.Paths, innerSock string, relay *standby.Standby, deadline time.Time) (*state.State, attached) {
	release, err := p.Acquire(time.Until(deadline))
	if err != nil {
		return nil, attached{err: err}
	}
	defer release()
	sentinel, pid, err := dialInner(innerSock)
	if err != nil {
		if !p.Lives() {
			p.Remove() // the lock's file, at least
		}
		return nil, attached{err: err}
	}
	defer sentinel.Close()
	joins := state.Answers(p.Socket)
	// A runc shim of containerd 1.6 or 1.7 unlinks the relay's socket as it ends, but not the
	// one for control.
	if joins || state.Answers(p.Control) {
		st, err := state.Read(p.State)
		switch {
		case err == nil && pid != st.InnerPID:
			return nil, attached{err: errLeaving}
		case joins && err != nil:
			return nil, attached{err: fmt.Errorf("join the sandbox's relay: %w", err)}
		case joins:
			s.leave(*st)
			return st, attached{}
		}
	}
	if relay == nil {
		if relay, err = standby.Spawn(s.Line, command.Relay); err != nil {
			return nil, attached{err: err}
		}
	}
	st, err := relay.Ready(time.Until(deadline))
	if err == nil {
		st.InnerSock, st.InnerPID, st.RelaySock = innerSock, pid, p.Socket
		st.Started, st.Uptime = s.began, host.Uptime()-time.Since(s.began)
		err = s.handOver(p, st, relay, sentinel)
	}
	if err != nil {
		relay.Discard()
		p.Remove()
		return nil, attached{err: err}
	}
	return st, attached{relay: relay}
}

// handOver listens in the inner shim's place, and has the relay go on with that. Whoever
// connects from then on waits for the relay.
func (s *starter) handOver(p state.Paths, st *state.State, relay *standby.Standby, sentinel *net.UnixConn) error {
	l, err := host.ListenUnix("unix", p.Socket)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	defer l.Close()
	if err := st.Write(p.State); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	if err := relay.Relay(st, l, sentinel); err != nil {
		return err
	}
	s.spans = append(s.spans, state.Timing{Name: names.RelaySpawn, Start: relay.Started, End: time.Now()})
	s.leave(*st)
	return nil
}

// dialInner connects to the inner shim, and returns the process that made its listening
// socket, which tells one shim at an address from the next.
func dialInner(path string) (*net.UnixConn, int, error) {
	conn, err := state.Dial(path)
	if err != nil {
		return nil, 0, fmt.Errorf("connect to the inner shim: %w", err)
	}
	cred, err := host.Peer(conn)
	if err != nil {
		conn.Close()
		return nil, 0, fmt.Errorf("connect to the inner shim: %w", err)
	}
	return conn, int(cred.Pid), nil
}

// leave leaves the state and what start spent its time on in the bundle.
func (s *starter) leave(st state.State) {
	st.Pending = []state.Timing{s.timing("")}
	if err := st.Write(filepath.Join(s.Bundle, state.File)); err != nil {
		s.log.Warn("this container's start is not traced", "error", err)
	}
}

func (s *starter) timing(failure string) state.Timing {
	return state.Timing{Name: names.ShimStart, Start: s.began, End: time.Now(), Error: failure, Children: s.spans}
}

// failed records the trace of a sandbox whose inner shim would not start: nobody
// else will. What would have been its relay writes it.
func (s *starter) failed(cause error, relay *spawning) {
	waiting := relay.wait()
	if s.cfg.Trace.Mode == "dynamic" || // tracing is not switched on before the sandbox has started
		s.notes[state.CRIContainerType] == "container" || // it failed to come into a running sandbox
		!state.DirAnswers(s.cfg.Relay.StateDir) {
		waiting.Discard()
		return
	}
	err := relay.err
	if err == nil {
		_, _ = waiting.Ready(recordTime) // if not, it can record all the same
		failure := filepath.Base(s.Inner) + " start: " + cause.Error()
		err = waiting.Record(&standby.Recording{
			Who: s.Identity(s.notes), Container: s.ID, State: state.State{Started: s.began}, Timing: s.timing(failure), Failure: failure,
		}, recordTime)
	}
	if err != nil {
		s.log.Warn("the failed start is not traced", "error", err)
	}
}

// recordTime is how long a start that has failed waits for its trace to be in the journal.
const recordTime = 500 * time.Millisecond
