package vmmdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// User is the owner of a file.
type User struct{ UID, GID uint32 }

// Dir is an open directory. Close also releases the lock.
type Dir struct {
	*os.File
	Owner User
}

// ErrNone means that the VMM has not made its directory yet, or has removed it.
var ErrNone = errors.New("no directory")

// Open opens a directory; ErrNone if there is none. It follows a symbolic link at path
// only as far as openLinked allows.
func Open(path string) (*Dir, error) {
	f, err := os.OpenFile(path, openFlags, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		f, err = openLinked(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	return &Dir{File: f, Owner: User{st.Uid, st.Gid}}, nil
}

const openFlags = unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// openLinked opens the target of a symbolic link at path if it lies beside the link:
// the Go runtime makes such a link for a sandbox whose VM is from its factory
// (kata-containers, src/runtime/virtcontainers/vm.go, assignSandbox). The link must
// belong to root, our own user or the owner of the parent directory, who could swap the
// two anyway. For any other link it returns ErrNone.
func openLinked(path string) (*os.File, error) {
	parent, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(parent)
	var dir, link, to unix.Stat_t
	if err := errors.Join(unix.Fstat(parent, &dir), unix.Fstatat(parent, filepath.Base(path), &link, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return nil, ErrNone
	}
	const othersWrite = 0o022
	trusted := link.Uid == 0 || int(link.Uid) == os.Geteuid() || link.Uid == dir.Uid
	if link.Mode&unix.S_IFMT != unix.S_IFLNK || dir.Mode&othersWrite != 0 || !trusted {
		return nil, ErrNone
	}
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(parent, filepath.Base(path), text)
	if err != nil {
		return nil, ErrNone
	}
	target := string(text[:n])
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(path), target)
	}
	if unix.Stat(filepath.Dir(target), &to) != nil || to.Dev != dir.Dev || to.Ino != dir.Ino {
		return nil, ErrNone
	}
	fd, err := unix.Openat(parent, filepath.Base(target), openFlags, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// patience bounds the wait for a directory's lock, which others hold only briefly.
const patience = 200 * time.Millisecond

// Lock keeps others out of the directory until Close. It waits for the time given, then
// it returns host.ErrLocked.
func (d *Dir) Lock(wait time.Duration) error {
	return host.Lock(d.File, unix.LOCK_EX, wait)
}

// Inside calls f with d as its working directory and its owner's rights to files, on a
// thread that ends with the call. So names in d stay names in d whatever happens to the
// path above it, and the length of a socket's path does not matter. An untrusted owner
// cannot plant links that make us touch what it could not touch itself. A panic of f
// becomes an error.
func (d *Dir) Inside(f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread must not be reused.
		runtime.LockOSThread()
		done <- func() (err error) {
			defer func() {
				if v := recover(); v != nil {
					err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
				}
			}()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Fchdir(int(d.Fd())); err != nil {
				return fmt.Errorf("enter the directory: %w", err)
			}
			// The process's first thread does not end, and its working directory would
			// keep a file system from being unmounted.
			defer unix.Chdir("/")
			return As(d.Owner, f)
		}()
	}()
	return <-done
}

// InsideLocked calls f inside the directory at path, which it locks. It does nothing if
// there is no directory.
func InsideLocked(path string, f func() error) error {
	dir, err := Open(path)
	if errors.Is(err, ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Inside(func() error {
		if err := dir.Lock(patience); err != nil {
			return err
		}
		return f()
	})
}

// As calls f with a user's rights to files. It may only be called inside Inside, which
// gives f its own thread.
func As(u User, f func() error) error {
	restore, err := assume(u)
	defer restore()
	if err != nil {
		return err
	}
	return f()
}

// assume gives the calling thread a user's rights to files. For our own user the group
// may stay wrong: we have that user's rights already.
func assume(u User) (restore func(), err error) {
	uid, _ := unix.SetfsuidRetUid(-1) // -1 changes nothing and returns the current value
	gid, _ := unix.SetfsgidRetGid(-1)
	restore = func() {
		_ = unix.Setfsuid(uid)
		_ = unix.Setfsgid(gid)
	}
	// Both calls report failure only by having no effect.
	_ = unix.Setfsgid(int(u.GID))
	_ = unix.Setfsuid(int(u.UID))
	nowUID, _ := unix.SetfsuidRetUid(-1)
	nowGID, _ := unix.SetfsgidRetGid(-1)
	if nowUID != int(u.UID) || nowGID != int(u.GID) && nowUID != os.Geteuid() {
		return restore, fmt.Errorf("act as user %d, group %d: %w", u.UID, u.GID, unix.EPERM)
	}
	return restore, nil
}
