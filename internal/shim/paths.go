package shim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/private"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// paths are the relay's files for one inner address. Any process can compute
// them, so that whoever starts a second container of a pod finds its relay.
type paths struct {
	socket  string
	state   string
	lock    string
	control string // where tracing is switched, if it is dynamic
}

// relayPaths returns the files of the relay to the inner socket, below dir.
func relayPaths(dir, innerSocket string) paths {
	sum := sha256.Sum256([]byte(innerSocket))
	base := filepath.Join(relaysDir(dir), hex.EncodeToString(sum[:16]))
	return paths{socket: base + ".sock", state: base + ".json", lock: base + ".lock", control: base + control.Suffix}
}

// relaysDir is where the relays' files are, below the state directory.
func relaysDir(dir string) string { return filepath.Join(dir, "s") }

// stateDir is the state directory that the relay was started with.
func (st *state) stateDir() string { return filepath.Dir(filepath.Dir(st.RelaySock)) }

// paths returns the files of the state's relay, wherever the configuration has them
// by now.
func (st *state) paths() paths {
	return relayPaths(st.stateDir(), st.InnerSock)
}

// create makes the directory of the files, for us only.
func (p paths) create() error {
	dir := filepath.Dir(p.socket)
	if err := private.MakeDir(dir); err != nil {
		return fmt.Errorf("create the relays' directory: %w", err)
	}
	return nil
}

// acquire takes the lock under which a relay comes into being or is cleared away,
// waiting at most as long as given.
func (p paths) acquire(wait time.Duration) (release func(), err error) {
	for end := time.Now().Add(wait); ; time.Sleep(2 * time.Millisecond) {
		release, err = p.tryAcquire()
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return release, err
		}
	}
}

func (p paths) tryAcquire() (release func(), err error) {
	f, err := private.Open(p.lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the relay: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the relay: %s: %w", p.lock, err)
	}
	// Who held it before may have removed it: then the lock is on a file that
	// nobody else will find.
	mine, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Lstat(p.lock); err == nil && !os.SameFile(mine, there) {
			err = unix.EWOULDBLOCK
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		err = unix.EWOULDBLOCK
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the relay: %s: %w", p.lock, err)
	}
	return func() { f.Close() }, nil
}

// remove removes the files, also what a killed relay has left of them; the caller
// holds the lock. The lock's own goes last.
func (p paths) remove() {
	for _, name := range []string{p.socket, p.control, halfOf(p.state), p.state, p.lock} {
		_ = os.Remove(name)
	}
}

// lives tells whether the relay is there. Its socket alone does not say: a 1.7 runc
// shim unlinks that as it ends.
func (p paths) lives() bool { return answers(p.socket) || answers(p.control) }

// dialTimeout bounds a connect to a Unix socket: it is immediate unless the
// listener's queue is full.
const dialTimeout = time.Second

// answers tells whether somebody listens on the Unix socket. Who does not come to accept
// does so, too, however many wait.
func answers(socket string) bool {
	conn, err := net.DialTimeout("unix", socket, dialTimeout)
	if err != nil {
		return errors.Is(err, unix.EAGAIN) || errors.Is(err, os.ErrDeadlineExceeded)
	}
	conn.Close()
	return true
}
