package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Listener listens on a Unix socket. Closing it leaves the file.
type Listener struct {
	*net.UnixListener
	path string
}

// Remove closes the listener and removes the file.
func (l *Listener) Remove() error { return errors.Join(l.Close(), os.Remove(l.path)) }

// ListenUnix listens on a socket that only our own user can connect to, at a path of any
// length in a directory that is closed to others. network is "unix" or "unixpacket". It
// replaces what is at path: the caller holds a lock, so nobody listens there.
func ListenUnix(network, path string) (*Listener, error) {
	name, release, err := shortName(path)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	defer release()
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: name, Net: network})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	// Until then the directory protects it.
	if err := os.Chmod(name, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return &Listener{l, path}, nil
}

// DialUnix connects to the socket at a path of any length.
func DialUnix(ctx context.Context, network, path string) (*net.UnixConn, error) {
	name, release, err := shortName(path)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	defer release()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, name)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// ConnectUnix returns why nobody could connect to the socket at a path of any length, nil if
// somebody could: nothing is said on that connection. It never waits: unix.EAGAIN says that
// too many are waiting already.
func ConnectUnix(path string) error {
	name, release, err := shortName(path)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", path, err)
	}
	defer release()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return fmt.Errorf("connect to %s: %w", path, err)
	}
	return nil
}

// shortName returns a name for path that fits into a socket address. It is valid until
// release.
func shortName(path string) (name string, release func(), err error) {
	const longest = 107 // unix(7), sun_path
	if len(path) <= longest {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { unix.Close(fd) }, nil
}

// Peer returns the process at the other end of a Unix socket, as it was when it connected
// or listened.
func Peer(conn syscall.Conn) (unix.Ucred, error) {
	var cred *unix.Ucred
	err := Control(conn, func(fd int) (err error) {
		if cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return fmt.Errorf("peer credentials: %w", err)
		}
		return nil
	})
	if err != nil {
		return unix.Ucred{}, err
	}
	return *cred, nil
}

// CheckPeer returns why the process at the other end of a Unix socket is not to be
// trusted; nil if it runs as one of the users.
func CheckPeer(conn syscall.Conn, users ...uint32) error {
	peer, err := Peer(conn)
	if err != nil {
		return err
	}
	if !slices.Contains(users, peer.Uid) {
		return fmt.Errorf("peer runs as user %d, allowed are %v", peer.Uid, users)
	}
	return nil
}

// UnixPair returns a connection, and its other end for another process. kind is
// unix.SOCK_STREAM or unix.SOCK_SEQPACKET.
func UnixPair(kind int) (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "pair")
	if ours, err = UnixConn(os.NewFile(uintptr(fds[0]), "pair")); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// UnixConn makes a connection of a descriptor, which it takes over.
func UnixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("%s is not a Unix socket", f.Name())
	}
	return u, nil
}

// UnixListener makes a listener of a descriptor, which it takes over. Closing the
// listener leaves the socket's file.
func UnixListener(f *os.File) (*net.UnixListener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("%s is not a Unix socket", f.Name())
	}
	return u, nil
}
