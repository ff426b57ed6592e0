package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
)

// socketFile is a listening Unix socket in a directory that belongs to a VMM.
type socketFile struct {
	*net.UnixListener
	path  string
	id    vmmdir.ID
	dir   vmmdir.ID
	owner uint32   // of the directory
	users []uint32 // who may connect
}

// bindSocketFile listens at path, in a directory that must exist (else vmmdir.ErrNone).
// The file appears with mode 0600 and already listening. It belongs to the directory's
// owner, so a VMM that runs as that user can connect. Root, our own user and the users
// of o may connect, too.
//
// A socket already at path is replaced if it belongs to the directory's owner or to our
// user and nobody listens there. Nothing else is ever removed.
func bindSocketFile(path string, o HybridOptions) (*socketFile, error) {
	dir, err := vmmdir.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	s := &socketFile{path: path, owner: dir.Owner.UID, users: allowed(dir.Owner.UID, o.Users)}
	name := filepath.Base(path)
	temp := ".shimtrace-new-" + name // nobody else's, while the directory is locked
	err = dir.Inside(func() (err error) {
		if err := dir.Lock(0); err != nil {
			return err
		}
		if err := clearStale(name, dir.Owner.UID); err != nil {
			return err
		}
		if err := vmmdir.Remove(temp); err != nil {
			return err
		}
		fd, err := vmmdir.ListenAt(temp, 0o600)
		if err != nil {
			return err
		}
		if s.UnixListener, err = host.UnixListener(os.NewFile(uintptr(fd), name)); err == nil {
			s.id, _, err = vmmdir.Identify(temp)
		}
		if err == nil {
			s.dir, _, err = vmmdir.Identify(".")
		}
		if err == nil {
			o.Listening(s.kept())
			err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
		}
		if err != nil {
			_ = vmmdir.Remove(temp)
		}
		return err
	})
	if err != nil {
		if s.UnixListener != nil {
			s.Close()
			o.Left(s.kept())
		}
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return s, nil
}

// allowed returns who may connect to a socket in a directory with the owner.
func allowed(owner uint32, extra []uint32) []uint32 {
	return append([]uint32{0, uint32(os.Geteuid()), owner}, extra...)
}

// present reports whether the file still has its name, in a directory that still has
// the same owner: a jailer may give it to another.
func (s *socketFile) present() bool {
	id, _, err := vmmdir.Identify(s.path)
	if err != nil || id != s.id {
		return false
	}
	_, dir, err := vmmdir.Identify(filepath.Dir(s.path))
	return err == nil && dir.Uid == s.owner
}

// remove removes the file if path still names it. The socket is closed later: until then
// no other file can get its inode number.
func (s *socketFile) remove() {
	// If this fails, the file goes with its directory.
	_ = vmmdir.InsideLocked(filepath.Dir(s.path), func() error {
		if id, _, err := vmmdir.Identify(filepath.Base(s.path)); err != nil || id != s.id {
			return err
		}
		return unix.Unlink(filepath.Base(s.path))
	})
}

// clearStale removes a stale socket at name in the working directory. The caller holds
// the directory's lock, and a socket listens before it gets its name. So a socket that
// refuses connections was left behind by a process that ended.
func clearStale(name string, owner uint32) error {
	id, st, err := vmmdir.Identify(name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("something is there that is no socket; remove it if it is not needed")
	}
	err = vmmdir.Connect(name)
	if !errors.Is(err, unix.ECONNREFUSED) {
		return errors.New("somebody else listens there: is another forwarder of agent spans running?")
	}
	if !slices.Contains([]uint32{owner, uint32(os.Geteuid())}, st.Uid) {
		return fmt.Errorf("a socket of user %d is there; remove it if it is not needed", st.Uid)
	}
	// Other programs do not take the lock.
	if now, _, err := vmmdir.Identify(name); err != nil || now != id {
		return host.ErrLocked
	}
	return unix.Unlink(name)
}
