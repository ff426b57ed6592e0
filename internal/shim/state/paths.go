package state

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// Paths are the relay's files for one inner address. Any process can compute
// them, so that whoever starts a second container of a pod finds its relay.
type Paths struct {
	Socket  string
	State   string
	lock    string
	Control string // where the relay is asked, and tracing is switched
}

// PathsOf returns the files of the relay to the inner socket, below dir.
func PathsOf(dir, innerSocket string) Paths {
	sum := sha256.Sum256([]byte(innerSocket))
	base := filepath.Join(RelaysDir(dir), hex.EncodeToString(sum[:16]))
	return Paths{Socket: base + ".sock", State: base + ".json", lock: base + ".lock", Control: base + control.Suffix}
}

// RelaysDir is where the relays' files are, below the state directory.
func RelaysDir(dir string) string { return filepath.Join(dir, "s") }

// StateDir is the state directory that the relay was started with.
func (st *State) StateDir() string { return filepath.Dir(filepath.Dir(st.RelaySock)) }

// Paths returns the files of the state's relay, wherever the configuration has them
// by now.
func (st *State) Paths() Paths {
	return PathsOf(st.StateDir(), st.InnerSock)
}

// Create makes the directory of the files, for us only.
func (p Paths) Create() error {
	dir := filepath.Dir(p.Socket)
	if err := private.MakeDir(dir); err != nil {
		return fmt.Errorf("create the relays' directory: %w", err)
	}
	return nil
}

// Acquire takes the lock under which a relay comes into being or is cleared away,
// waiting at most as long as given.
func (p Paths) Acquire(wait time.Duration) (release func(), err error) {
	f, err := host.LockFile(p.lock, unix.LOCK_EX, wait)
	if err != nil {
		return nil, fmt.Errorf("lock the relay: %s: %w", p.lock, err)
	}
	return func() { f.Close() }, nil
}

// Remove removes the files, also what a killed relay has left of them; the caller
// holds the lock. The lock's own goes last.
func (p Paths) Remove() {
	for _, name := range []string{p.Socket, p.Control, halfOf(p.State), p.State, p.lock} {
		_ = os.Remove(name)
	}
}

// Lives reports whether the relay is there. Its socket alone does not say: a 1.7 runc
// shim unlinks that as it ends.
func (p Paths) Lives() bool { return Answers(p.Socket) || Answers(p.Control) }

// RelayDied reports whether the sandbox's relay died and has left its files, which nobody
// is clearing away. One that ends in order holds their lock until they are gone.
func (st *State) RelayDied() bool {
	p := st.Paths()
	if p.Socket != st.RelaySock || p.Lives() {
		return false
	}
	if _, err := os.Lstat(p.State); err != nil {
		return false
	}
	release, err := p.Acquire(0)
	if err != nil {
		return false
	}
	defer release()
	if _, err := os.Lstat(p.State); err != nil {
		p.Remove() // the lock's file is new
		return false
	}
	return true
}
