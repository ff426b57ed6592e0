package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
)

// ListenUnix listens at the path of a Unix socket in a directory that no other user can
// change. Only processes of root, of our own user and of the given ones are admitted;
// connections of others are closed unread, and counted in strangers. An old socket at
// path is replaced if nobody listens there any more. Closing the listener removes it.
func ListenUnix(path string, users []uint32, strangers *atomic.Uint64) (net.Listener, error) {
	if err := private.MakeDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	if err := vacant(path); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	l, err := host.ListenUnix("unix", path)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		if err := os.Chmod(path, 0o666); err != nil {
			l.Remove()
			return nil, fmt.Errorf("listen at %s: %w", path, err)
		}
	}
	return &unixListener{
		Listener: l, users: append(slices.Clone(users), 0, uint32(os.Geteuid())), strangers: strangers, close: sync.OnceValue(l.Remove),
	}, nil
}

// vacant returns why a socket can't be made at path; nil if nothing is there, or a
// socket that nobody listens at.
func vacant(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file of another kind")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := host.DialUnix(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return errors.New("another process listens there")
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return err
}

type unixListener struct {
	*host.Listener
	users     []uint32
	strangers *atomic.Uint64
	close     func() error // runs once: another socket may be at the path by then
}

// Accept implements net.Listener.
func (l *unixListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := host.Peer(conn)
		if err != nil || !slices.Contains(l.users, peer.Uid) {
			l.strangers.Add(1)
			conn.Close()
			continue
		}
		start, err := proc.Start(int(peer.Pid))
		if err != nil {
			start = 0 // in another process namespace, or gone: no process that shimtrace knows
		}
		return &unixConn{conn, peer.Uid, int(peer.Pid), start}, nil
	}
}

// Close implements net.Listener.
func (l *unixListener) Close() error { return l.close() }

// unixConn is a connection of an admitted process.
type unixConn struct {
	*net.UnixConn
	uid   uint32
	pid   int
	start uint64 // 0: not known
}

// User implements user.
func (c *unixConn) User() uint32 { return c.uid }
