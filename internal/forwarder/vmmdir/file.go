package vmmdir

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ID identifies a file, so that files with the same name one after another can be told
// apart.
type ID struct{ Dev, Ino uint64 }

// Identify returns the file at name. It does not follow symbolic links.
func Identify(name string) (ID, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return ID{}, st, err
	}
	return ID{st.Dev, st.Ino}, st, nil
}

// backlog is how many connections may wait to be accepted.
const backlog = 128

// ListenAt returns a new socket that listens at name, which must be free, in Inside's
// working directory. The file has the mode from the moment it exists.
func ListenAt(name string, mode uint32) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	// bind(2) gives the file the socket's mode.
	if err = unix.Fchmod(fd, mode); err == nil {
		umask := unix.Umask(0) // of this thread only
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

// Connect connects to the socket at name in the working directory, hangs up, and returns
// the error: ECONNREFUSED for a socket without a listener, EAGAIN for a full queue.
func Connect(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

// Remove removes a file whose name only shimtrace uses, if it exists.
func Remove(name string) error {
	if err := unix.Unlink(name); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
