package state

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout bounds a connect to a Unix socket: it is immediate unless the
// listener's queue is full.
const dialTimeout = time.Second

// Answers tells whether somebody listens on the Unix socket. Who does not come to accept
// does so, too, however many wait.
func Answers(socket string) bool {
	conn, err := net.DialTimeout("unix", socket, dialTimeout)
	if err != nil {
		return errors.Is(err, unix.EAGAIN) || errors.Is(err, os.ErrDeadlineExceeded)
	}
	conn.Close()
	return true
}

// Dial connects to a Unix socket.
func Dial(path string) (*net.UnixConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// Peer returns the credentials of the process at the other end.
func Peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var serr error
	if err := raw.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, serr
}
