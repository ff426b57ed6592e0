package shim

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// starter carries out one start.
type starter struct {
	command
	cfg   config.Config
	inner string
	log   *slog.Logger
	began time.Time
	spans []state.Timing // what start spent its time on
}

// start runs the inner shim's start and puts the relay in front of it. Whatever
// goes wrong with the relay, containerd gets the inner shim's answer.
func (c command) start(cfg config.Config, inner string, log *slog.Logger) int {
	s := &starter{command: c, cfg: cfg, inner: inner, log: log, began: time.Now()}
	relay := s.spawnEarly()
	out, err := s.runInner()
	if err != nil {
		os.Stdout.Write(out)
		s.failed(err, relay)
		return exitCode(err)
	}
	reply := out
	if a, err := s.attachInTime(out, relay); err != nil {
		s.log.Warn("this container is not traced: containerd is given the inner shim", "error", err)
		if err := state.LeaveInner(s.bundle, s.cfg, s.inner); err != nil {
			s.log.Debug("which shim was started is not in the bundle", "error", err)
		}
	} else {
		reply = a
	}
	if _, err := os.Stdout.Write(reply); err != nil {
		s.log.Error("answer containerd", "error", err)
		return 1
	}
	return 0
}

// runInner runs the inner shim's start with our standard input and error and
// returns what it wrote to its standard output.
func (s *starter) runInner() ([]byte, error) {
	var out bytes.Buffer
	cmd := innerCommand(s.inner, s.command)
	cmd.Stdout = &out
	t := state.Timing{Name: names.InnerStart, Start: time.Now()}
	notes, _ := state.ReadAnnotations(s.bundle)
	lock := state.StartLock(state.RelaysDir(s.cfg.Relay.StateDir), s.namespace, notes.SandboxID(s.id))
	release := func() {}
	if state.DirAnswers(s.cfg.Relay.StateDir) {
		release, _ = state.LockStart(lock, unix.LOCK_SH, state.StartPatience)
	}
	err := cmd.Run()
	release()
	t.End = time.Now()
	if err != nil {
		t.Error = err.Error()
	}
	s.spans = append(s.spans, t)
	return out.Bytes(), err
}

// spawning is a relay process on its way.
type spawning struct {
	done    chan struct{}
	standby *standby
	err     error
}

// spawnEarly starts a relay process beside the inner shim's start, unless the
// container is one that comes into a pod: its relay is there already, most likely.
func (s *starter) spawnEarly() *spawning {
	sp := &spawning{done: make(chan struct{})}
	go func() {
		defer close(sp.done)
		if notes, err := state.ReadAnnotations(s.bundle); err == nil && notes[state.CRIContainerType] == "container" {
			return
		}
		sp.standby, sp.err = spawnRelay(s.command, actionRelay)
	}()
	return sp
}

// wait returns the relay process, nil if there is none.
func (sp *spawning) wait() *standby {
	<-sp.done
	return sp.standby
}

// attachTime is how much longer than the relay's ready_timeout an attach may take. All
// that it waits for has bounds of its own, but for the state directory.
const attachTime = 5 * time.Second

// attachInTime is attach, unless the state directory's file system hangs.
func (s *starter) attachInTime(out []byte, relay *spawning) (reply []byte, err error) {
	silent := fmt.Errorf("the state directory %s does not answer", s.cfg.Relay.StateDir)
	if !state.DirAnswers(s.cfg.Relay.StateDir) {
		return nil, silent
	}
	type attached struct {
		reply []byte
		err   error
	}
	done := make(chan attached, 1)
	go func() {
		reply, err := s.attach(out, relay)
		done <- attached{reply, err}
	}()
	select {
	case a := <-done:
		return a.reply, a.err
	case <-time.After(time.Duration(s.cfg.Relay.ReadyTimeout) + attachTime):
		return nil, silent
	}
}

// attach puts a relay in front of the shim that out names and returns the answer
// that names the relay instead.
func (s *starter) attach(out []byte, relay *spawning) (reply []byte, err error) {
	standby := relay.wait()
	defer func() {
		if err != nil {
			standby.discard()
		}
	}()
	a, err := parseAnswer(out)
	if err != nil {
		return nil, err
	}
	innerSock, err := a.socketPath()
	if err != nil {
		return nil, err
	}
	if relay.err != nil {
		return nil, relay.err
	}
	p := state.PathsOf(s.cfg.Relay.StateDir, innerSock)
	if err := p.Create(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(time.Duration(s.cfg.Relay.ReadyTimeout))
	st, err := s.findRelay(p, innerSock, standby, deadline)
	if err != nil {
		return nil, err
	}
	address := "unix://" + st.RelaySock
	if err := replaceAddress(s.bundle, address); err != nil {
		s.log.Warn("containerd will go to the inner shim after a restart", "error", err)
	}
	s.leave(*st)
	return a.encode(address), nil
}

// errLeaving says that a relay is there which belongs to an earlier inner shim on
// the same address and has yet to notice that it is gone.
var errLeaving = errors.New("the relay of an earlier shim on the same address is still there")

// findRelay returns the state of the relay in front of the inner socket, which is
// the one that another container's start has made, or else the given one.
func (s *starter) findRelay(p state.Paths, innerSock string, relay *standby, deadline time.Time) (*state.State, error) {
	for {
		st, err := s.tryRelay(p, innerSock, relay, deadline)
		if !errors.Is(err, errLeaving) || time.Now().After(deadline) {
			return st, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *starter) tryRelay(p state.Paths, innerSock string, relay *standby, deadline time.Time) (*state.State, error) {
	release, err := p.Acquire(time.Until(deadline))
	if err != nil {
		return nil, err
	}
	defer release()
	if state.Answers(p.Socket) {
		st, err := state.Read(p.State)
		if err != nil {
			return nil, fmt.Errorf("join the sandbox's relay: %w", err)
		}
		pid, err := listenerPID(innerSock)
		if err != nil {
			return nil, fmt.Errorf("join the sandbox's relay: %w", err)
		}
		if pid != st.InnerPID {
			return nil, errLeaving
		}
		relay.discard()
		return st, nil
	}
	if relay == nil {
		if relay, err = spawnRelay(s.command, actionRelay); err != nil {
			return nil, err
		}
	}
	st, err := relay.assign(assignment{InnerSock: innerSock, Started: s.began}, time.Until(deadline))
	if err == nil && !state.Answers(st.RelaySock) {
		err = errors.New("relay: it died before it was handed out")
	}
	if err != nil {
		relay.discard()
		p.Remove()
		return nil, err
	}
	s.spans = append(s.spans, state.Timing{Name: names.RelaySpawn, Start: relay.started, End: time.Now()})
	return st, nil
}

// listenerPID returns the process that made the listening socket at path, which
// tells one shim at an address from the next.
func listenerPID(path string) (int, error) {
	conn, err := state.Dial(path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	cred, err := host.Peer(conn)
	if err != nil {
		return 0, fmt.Errorf("peer of %s: %w", path, err)
	}
	return int(cred.Pid), nil
}

// leave leaves the state and what start spent its time on in the bundle.
func (s *starter) leave(st state.State) {
	st.Pending = []state.Timing{s.timing("")}
	if err := st.Write(filepath.Join(s.bundle, state.File)); err != nil {
		s.log.Warn("this container's start is not traced", "error", err)
	}
}

func (s *starter) timing(failure string) state.Timing {
	return state.Timing{Name: names.ShimStart, Start: s.began, End: time.Now(), Error: failure, Children: s.spans}
}

// failed records the trace of a sandbox whose inner shim would not start: nobody
// else will. What would have been its relay writes it.
func (s *starter) failed(cause error, relay *spawning) {
	standby := relay.wait()
	if s.cfg.Trace.Mode == "dynamic" {
		standby.discard()
		return // it is not switched on before it has started
	}
	who := s.identity(s.inner)
	if who.Notes[state.CRIContainerType] == "container" {
		standby.discard()
		return // a container that failed to come into a running sandbox
	}
	err := relay.err
	if err == nil && !state.DirAnswers(s.cfg.Relay.StateDir) {
		standby.discard()
		return
	}
	if err == nil {
		failure := filepath.Base(s.inner) + " start: " + cause.Error()
		cause, _ := who.Notes.Cause(s.cfg.Trace.Annotations) // what is wrong, a start that works says
		root := telemetry.NewRoot(s.cfg.Trace, cause)
		st := state.State{Trace: state.NewTraceContext(root), Cause: state.CauseContext(cause), Started: s.began}
		r := newRecording(who, s.id, st, s.timing(failure))
		r.Failure = failure
		err = standby.record(r)
	}
	if err != nil {
		s.log.Warn("the failed start is not traced", "error", err)
	}
}
