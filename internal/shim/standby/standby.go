// Package standby is how start and delete have another process go on after them: a relay
// that comes up beside the inner shim's command, or a process that records what the command
// would have in the trace. It has both sides of what they say to each other; what the
// process then does is package process.
//
// containerd waits for start and delete. So their program links nothing that only the
// process needs, and they wait for nothing that they can do without.
package standby

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/processors"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// Standby is a process that has been started, and has not been told yet what to do. One
// that is not told anything ends by itself when its starter does.
type Standby struct {
	Started time.Time
	conn    *net.UnixConn
	process *host.Child
}

// linkFD is the descriptor by which the process hears its starter.
const linkFD = 3

// Program returns the path of the program that relays: it is beside our own, links
// resolved, where the one of the same version is.
func Program() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), shimname.RelayProgram)
	if err := unix.Access(path, unix.X_OK); err != nil {
		return "", fmt.Errorf("%s: %w: install it beside the shim", path, err)
	}
	return path, nil
}

// Spawn starts a process for an action, command.Relay or command.Record.
func Spawn(line command.Line, action string) (*Standby, error) {
	s := &Standby{Started: time.Now()}
	program, err := Program()
	if err != nil {
		return nil, fmt.Errorf("spawn the relay: %w", err)
	}
	conn, theirs, err := host.UnixPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, fmt.Errorf("spawn the relay: %w", err)
	}
	defer theirs.Close()
	s.conn = conn
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("spawn the relay: %w", err)
	}
	defer null.Close()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), theirs.Fd()} // the last one is linkFD
	attr := &syscall.ProcAttr{Dir: "/", Env: processors.Environ(), Files: files, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if s.process, err = host.StartChild(program, line.Of(action), attr); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("spawn the relay: %w", err)
	}
	// The first encoding and decoding are slow; the inner shim's command takes longer than
	// that.
	_, _ = json.Marshal(order{Relay: new(state.State), Record: new(Recording)})
	_ = json.Unmarshal([]byte("{}"), new(report))
	return s, nil
}

// Ready waits until the relay could go on, and returns the beginning of the sandbox's state.
func (s *Standby) Ready(wait time.Duration) (*state.State, error) {
	if err := s.conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r, err := s.hear()
	switch {
	case err != nil:
		return nil, fmt.Errorf("relay: it died or is not ready after %v: %w", wait, err)
	case r.State == nil:
		return nil, fmt.Errorf("relay: %s", r.Error)
	}
	return r.State, nil
}

// Relay has a relay that is ready go on: with the socket that containerd is to connect to,
// and a connection to the inner shim that says how long that lives. It does not wait for
// the relay: whoever connects does.
func (s *Standby) Relay(st *state.State, listener, sentinel syscall.Conn) error {
	if err := s.say(order{Relay: st}, sayTime, listener, sentinel); err != nil {
		return fmt.Errorf("relay: it died before it was told what to relay: %w", err)
	}
	return nil
}

// Answered tells the relay that containerd is about to know of it. A relay that is not told
// this ends, unless somebody connects.
func (s *Standby) Answered() {
	if s != nil {
		_ = s.say(order{Answered: true}, sayTime)
	}
}

// Restore has the process give the VMM its socket back, whose place a relay took that has
// died, and returns when that is done.
func (s *Standby) Restore(st *state.State, wait time.Duration) error {
	if s == nil {
		return errNone
	}
	return s.do(order{Restore: st}, wait)
}

// Record has the process make spans. It goes on by itself, whatever the outcome: nobody
// waits for it unless wait is more than 0.
func (s *Standby) Record(r *Recording, wait time.Duration) error {
	if s == nil {
		return errNone
	}
	defer s.conn.Close()
	r.Response = r.Response[:min(len(r.Response), maxResponse)]
	r.Who.Notes = r.Who.Notes.Known()
	if wait > 0 {
		return s.do(order{Record: r, Wait: true}, wait)
	}
	if err := s.say(order{Record: r}, sayTime); err != nil {
		return fmt.Errorf("tell a process what to record: %w", err)
	}
	return nil
}

var errNone = errors.New("there is no process that does it")

// sayTime bounds how long it takes to say something to a process that does not listen. It
// is long enough for a process that only waits for a processor.
const sayTime = time.Second

// Discard lets a process go that is not needed or has failed.
func (s *Standby) Discard() {
	if s == nil {
		return
	}
	s.conn.Close()
	// Without its starter it ends by itself; one that hangs must not stay.
	_ = s.process.Kill()
	_ = s.process.Wait()
}

func (s *Standby) do(o order, wait time.Duration) error {
	r, err := s.ask(o, wait)
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return err
}

func (s *Standby) ask(o order, wait time.Duration) (r report, err error) {
	if err := s.say(o, wait); err != nil {
		return r, fmt.Errorf("it died before it was told what to do: %w", err)
	}
	if r, err = s.hear(); err != nil {
		return r, fmt.Errorf("it died or is not done after %v: %w", wait, err)
	}
	return r, nil
}

func (s *Standby) say(o order, wait time.Duration, files ...syscall.Conn) error {
	if err := s.conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	return send(s.conn, o, files...)
}

func (s *Standby) hear() (r report, err error) {
	_, err = receive(s.conn, &r, 0)
	return r, err
}
