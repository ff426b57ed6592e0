package vmmdir

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ID tells files apart that had the same name one after another.
type ID struct{ Dev, Ino uint64 }

// Identify says what bears a name; a link is not followed.
func Identify(name string) (ID, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return ID{}, st, err
	}
	return ID{st.Dev, st.Ino}, st, nil
}

// backlog is how many connections may wait to be accepted.
const backlog = 128

// ListenAt returns a new socket that listens at name, which must be free, in the
// working directory of Inside. The file has the mode from its first moment on.
func ListenAt(name string, mode uint32) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	// A socket file gets the mode that its socket has when it is bound.
	if err = unix.Fchmod(fd, mode); err == nil {
		umask := unix.Umask(0) // of this thread alone
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		unix.Umask(umask)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind: %w", err)
	}
	return fd, nil
}

// Connect tries to connect to the socket at name in the working directory, and
// returns what keeps it from that: ECONNREFUSED for a socket without a listener,
// EAGAIN for one whose queue is full.
func Connect(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

// Remove removes a file that bears a name only we use, if there is one.
func Remove(name string) error {
	if err := unix.Unlink(name); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
