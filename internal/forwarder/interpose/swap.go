package interpose

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
)

var (
	// errTaken: another relay has the place.
	errTaken = errors.New("another relay has taken it")
	// errChanged: the VMM has replaced its socket meanwhile; try again.
	errChanged = errors.New("the socket has changed")
)

// takeSeat takes the place of the socket at path. At every moment the name exists and
// belongs to the VMM's socket or to one that listens.
func takeSeat(path string, o *Options) (*seat, error) {
	dir, err := vmmdir.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	s := &seat{path: path, name: filepath.Base(path), over: make(chan struct{})}
	err = dir.Inside(func() error {
		if err := dir.Lock(0); err != nil {
			return err
		}
		if err := clearAway(s.name); err != nil {
			return err
		}
		return s.swap(o)
	})
	if err != nil {
		s.drop()
		return nil, err
	}
	return s, nil
}

// swap makes a listening socket with the VMM's mode and owner, and exchanges the two.
// It runs in the locked directory.
func (s *seat) swap(o *Options) error {
	// The descriptor stays with this socket, whatever happens to its names.
	hold, err := unix.Open(s.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	s.hold = os.NewFile(uintptr(hold), s.path)
	var st unix.Stat_t
	if err := unix.Fstat(hold, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("it is no socket")
	}
	s.vmm = vmmdir.ID{Dev: st.Dev, Ino: st.Ino}
	temp := newName(s.name)
	user := vmmdir.User{UID: st.Uid, GID: st.Gid}
	var fd int
	err = vmmdir.As(user, func() (err error) {
		fd, err = vmmdir.ListenAt(temp, st.Mode&0o7777)
		return err
	})
	if err != nil {
		return err
	}
	o.step("bound")
	if s.UnixListener, err = host.UnixListener(os.NewFile(uintptr(fd), "interposed socket")); err == nil {
		err = s.enter(temp, st, o)
	}
	if err != nil {
		_ = vmmdir.As(user, func() error { return vmmdir.Remove(temp) })
	}
	return err
}

// enter gives the socket at temp the VMM's name, and the VMM's socket the hidden name.
func (s *seat) enter(temp string, like unix.Stat_t, o *Options) error {
	id, own, err := vmmdir.Identify(temp)
	if err != nil {
		return err
	}
	if own.Mode != like.Mode || own.Uid != like.Uid || own.Gid != like.Gid {
		return fmt.Errorf("ours would be %o of %d:%d, the VMM's is %o of %d:%d", own.Mode, own.Uid, own.Gid, like.Mode, like.Uid, like.Gid)
	}
	s.own = id
	s.hidden = hiddenName(s.name, id)
	if err := unix.Rename(temp, s.hidden); err != nil {
		return err
	}
	o.step("named")
	err = exchange(s.hidden, s.name)
	o.step("exchanged")
	if err != nil {
		_ = vmmdir.Remove(s.hidden)
		return err
	}
	return s.verify(like)
}

// exchange swaps two names. Every file system that VMMs have their sockets on can do it.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// verify undoes the exchange if it hit another socket than the copied one.
func (s *seat) verify(like unix.Stat_t) error {
	if id, st, err := vmmdir.Identify(s.hidden); err == nil && id == s.vmm && st.Mode == like.Mode && st.Uid == like.Uid && st.Gid == like.Gid {
		return nil
	}
	if err := exchange(s.hidden, s.name); err != nil {
		return err
	}
	if err := vmmdir.Remove(s.hidden); err != nil {
		return err
	}
	return errChanged
}

// giveBack gives the VMM's socket its name back if ours still has it, and removes our
// socket.
func (s *seat) giveBack() error {
	err := vmmdir.InsideLocked(filepath.Dir(s.path), func() error {
		if id, _, err := vmmdir.Identify(s.name); err != nil || id != s.own {
			return vmmdir.Remove(s.hidden)
		}
		if id, _, err := vmmdir.Identify(s.hidden); err != nil || id != s.vmm {
			return vmmdir.Remove(s.name) // the VMM's socket is gone, so nobody answers
		}
		return giveName(s.hidden, s.name, s.own)
	})
	if err != nil {
		return fmt.Errorf("give %s back: %w", s.path, err)
	}
	return nil
}

// present reports whether the name is still ours.
func (s *seat) present() bool {
	id, _, err := vmmdir.Identify(s.path)
	return err == nil && id == s.own
}
