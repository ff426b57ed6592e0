package relay

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// listenUnix listens on a Unix socket that only our own user can reach. A socket that
// nobody listens on any more is replaced.
func listenUnix(path string) (*listener, error) {
	if !state.Answers(path) {
		_ = os.Remove(path)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("relay listen: %w", err)
	}
	// Until here the directory, which is closed to others, guards it.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("relay listen: %w", err)
	}
	l.SetUnlinkOnClose(false) // whoever holds the lock removes it
	return &listener{UnixListener: l, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
}

// listener accepts only connections of our own user and group, as shims do
// (ttrpc.UnixSocketRequireSameUser).
type listener struct {
	*net.UnixListener
	uid, gid uint32
	accepted atomic.Uint64 // connections, whosever they were
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		l.accepted.Add(1)
		if cred, err := state.Peer(conn); err == nil && cred.Uid == l.uid && cred.Gid == l.gid {
			return conn, nil
		}
		conn.Close()
	}
}
