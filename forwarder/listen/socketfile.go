package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// socketFile is a listening Unix socket in a directory that belongs to a VMM.
type socketFile struct {
	*net.UnixListener
	path  string
	id    fileID
	owner uint32   // of the directory
	users []uint32 // who may connect
}

// fileID tells files apart that had the same name one after another.
type fileID struct{ dev, ino uint64 }

// errNoDirectory: the VMM has not made its directory yet, or has removed it.
var errNoDirectory = errors.New("no directory")

// bindSocketFile listens at path, in a directory that must exist (else
// errNoDirectory). The file appears under its name with mode 0600 and listening,
// all at once. It belongs to the directory's owner, so a VMM that runs as a user
// of its own can connect, for its user owns its directory; so may root, ourselves
// and the users in extra.
//
// A socket that is there already is replaced if it is the owner's, or ours, and
// nobody listens; nothing else is ever removed.
func bindSocketFile(path string, extra []uint32) (*socketFile, error) {
	dir, owner, err := openDirectory(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	s := &socketFile{path: path, owner: owner.uid, users: append([]uint32{0, uint32(os.Geteuid()), owner.uid}, extra...)}
	name := filepath.Base(path)
	temp := ".shimtrace-" + strconv.Itoa(os.Getpid())
	var fd int
	err = insideDirectory(dir, owner, func() (err error) {
		if err := lockDirectory(dir); err != nil {
			return err
		}
		if err := clearStale(name, owner.uid); err != nil {
			return err
		}
		if err := removeSocket(temp); err != nil {
			return err
		}
		if fd, err = listenSocket(temp); err != nil {
			return err
		}
		if err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE); err == nil {
			s.id, _, err = identify(name)
		}
		if err != nil {
			unix.Close(fd)
			_ = removeSocket(temp)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	l, err := net.FileListener(f) // leaves the file alone when it is closed
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	s.UnixListener = l.(*net.UnixListener)
	return s, nil
}

// present tells whether the file is still there under its name, in a directory
// that still has the same owner (a jailer may give it to another).
func (s *socketFile) present() bool {
	id, _, err := identify(s.path)
	if err != nil || id != s.id {
		return false
	}
	_, dir, err := identify(filepath.Dir(s.path))
	return err == nil && dir.Uid == s.owner
}

// remove stops listening and removes the file, if it is still the one.
func (s *socketFile) remove() {
	s.Close()
	dir, owner, err := openDirectory(filepath.Dir(s.path))
	if err != nil {
		return
	}
	defer dir.Close()
	// What cannot be removed goes with its directory.
	_ = insideDirectory(dir, owner, func() error {
		if err := lockDirectory(dir); err != nil {
			return err
		}
		if id, _, err := identify(filepath.Base(s.path)); err != nil || id != s.id {
			return err
		}
		return unix.Unlink(filepath.Base(s.path))
	})
}

// listenSocket returns a new socket that listens at name in the working
// directory. A socket file gets the mode that its socket has when it is bound.
func listenSocket(name string) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err = unix.Fchmod(fd, 0o600); err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
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

// backlog is how many connections may wait to be accepted.
const backlog = 128

// clearStale makes room for a socket at name in the working directory. The caller
// holds the directory's lock, and a socket listens before it gets its name, so
// one that refuses has been left behind by a process that ended.
func clearStale(name string, owner uint32) error {
	_, st, err := identify(name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("something is there that is no socket; remove it if it is not needed")
	}
	err = tryConnect(name)
	if !errors.Is(err, unix.ECONNREFUSED) {
		return errors.New("somebody else listens there: is another forwarder of agent spans running?")
	}
	if !slices.Contains([]uint32{owner, uint32(os.Geteuid())}, st.Uid) {
		return fmt.Errorf("a socket of user %d is there; remove it if it is not needed", st.Uid)
	}
	return unix.Unlink(name)
}

func tryConnect(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

// removeSocket removes a socket that bears a name only we use.
func removeSocket(name string) error {
	if err := unix.Unlink(name); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

func identify(name string) (fileID, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return fileID{}, st, err
	}
	return fileID{st.Dev, st.Ino}, st, nil
}
