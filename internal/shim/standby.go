package shim

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// standby is a relay process that has been started but not been told yet what to
// relay: it comes up while the inner shim does. A standby that is not told anything
// ends by itself when its start does.
type standby struct {
	started time.Time
	conn    *net.UnixConn
	process *os.Process
}

// assignment is what start tells the relay.
type assignment struct {
	InnerSock string    `json:"inner_socket"`
	Started   time.Time `json:"started"` // when start was run
	// Record is all that is to be done, if there is nothing to relay.
	Record *recording `json:"record,omitempty"`
}

// report is what the relay answers: the sandbox's state when it is ready, or why
// it is not.
type report struct {
	State *state.State `json:"state,omitempty"`
	Error string       `json:"error,omitempty"`
}

func reportOf(err error) (r report) {
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// handoverFD is the descriptor by which the relay process talks to its start.
const handoverFD = 3

// spawnRelay starts the relay process, or, with actionRecord, one that only records.
func spawnRelay(c command, action string) (*standby, error) {
	s := &standby{started: time.Now()}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("spawn the relay: %w", err)
	}
	conn, theirs, err := host.UnixPair(unix.SOCK_STREAM)
	if err != nil {
		return nil, fmt.Errorf("spawn the relay: %w", err)
	}
	defer theirs.Close()
	s.conn = conn
	cmd := exec.Command(self)
	cmd.Args = c.relayArgs(action)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("spawn the relay: %w", err)
	}
	s.process = cmd.Process
	return s, nil
}

// assign tells the relay what to do and waits until it is ready.
func (s *standby) assign(a assignment, wait time.Duration) (*state.State, error) {
	if err := s.conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	if err := json.NewEncoder(s.conn).Encode(a); err != nil {
		return nil, fmt.Errorf("relay: it died before it was told what to relay: %w", err)
	}
	var r report
	if err := json.NewDecoder(s.conn).Decode(&r); err != nil {
		return nil, fmt.Errorf("relay: it died or is not ready after %v: %w", wait, err)
	}
	if r.State == nil {
		return nil, fmt.Errorf("relay: %s", r.Error)
	}
	return r.State, nil
}

// discard lets a relay go that is not needed or has failed.
func (s *standby) discard() {
	if s == nil {
		return
	}
	s.conn.Close()
	// Without its start it ends by itself; one that hangs must not stay.
	_ = s.process.Kill()
	_, _ = s.process.Wait()
}
