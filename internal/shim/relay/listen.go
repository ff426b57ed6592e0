package relay

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// listenUnix listens on a Unix socket that only our own user can reach. A socket that
// nobody listens on any more is replaced.
func listenUnix(path string) (*listener, error) {
	if state.Answers(path) {
		return nil, fmt.Errorf("relay listen: somebody listens at %s already", path)
	}
	l, err := host.ListenUnix("unix", path) // whoever holds the lock removes it
	if err != nil {
		return nil, fmt.Errorf("relay listen: %w", err)
	}
	return newListener(l.UnixListener), nil
}

// listener accepts only connections of our own user and group, as shims do
// (ttrpc.UnixSocketRequireSameUser).
type listener struct {
	*net.UnixListener
	uid, gid uint32
	accepted atomic.Uint64 // connections, whosever they were
}

func newListener(l *net.UnixListener) *listener {
	return &listener{UnixListener: l, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
}

// pause has Accept return as if the listener were closed, or not any more.
func (l *listener) pause(on bool) {
	var at time.Time
	if on {
		at = time.Unix(1, 0)
	}
	_ = l.SetDeadline(at)
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, net.ErrClosed
		}
		if err != nil {
			return nil, err
		}
		l.accepted.Add(1)
		if cred, err := host.Peer(conn); err == nil && cred.Uid == l.uid && cred.Gid == l.gid {
			return conn, nil
		}
		conn.Close()
	}
}
