package listen

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// user owns a directory.
type user struct{ uid, gid uint32 }

// openDirectory opens a directory and says whose it is; errNoDirectory if there
// is none. A link in its place is not followed.
func openDirectory(path string) (*os.File, user, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, user{}, errNoDirectory
	}
	if err != nil {
		return nil, user{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		dir.Close()
		return nil, user{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return dir, user{st.Uid, st.Gid}, nil
}

// errBusy: another relay is at work in the directory; try again.
var errBusy = errors.New("the directory is locked")

// lockDirectory keeps other relays from changing what we look at. The lock ends
// when dir is closed.
func lockDirectory(dir *os.File) error {
	err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errBusy
	}
	return err
}

// insideDirectory calls f with dir as its working directory and with its owner's
// rights to files, on a thread that ends with the call: names in dir stay names
// in dir whatever happens to the path above it, a socket's path may be as long as
// it likes, and an owner that is not to be trusted cannot make us touch, by links
// of its own making, what it could not touch itself.
func insideDirectory(dir *os.File, owner user, f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread is not fit for anything else afterwards.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Fchdir(int(dir.Fd())); err != nil {
				return fmt.Errorf("enter the directory: %w", err)
			}
			// The process's first thread does not end; nothing must be kept from
			// being unmounted by it.
			defer unix.Chdir("/")
			if int(owner.uid) == os.Geteuid() {
				return f()
			}
			restore, err := assume(owner)
			defer restore()
			if err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}

// assume gives the calling thread a user's rights to files.
func assume(u user) (restore func(), err error) {
	uid, gid := os.Geteuid(), os.Getegid()
	restore = func() {
		_ = unix.Setfsuid(uid)
		_ = unix.Setfsgid(gid)
	}
	// Neither call reports a failure other than by its effect; -1 changes nothing
	// and tells what is.
	_ = unix.Setfsgid(int(u.gid))
	_ = unix.Setfsuid(int(u.uid))
	nowUID, _ := unix.SetfsuidRetUid(-1)
	nowGID, _ := unix.SetfsgidRetGid(-1)
	if nowUID != int(u.uid) || nowGID != int(u.gid) {
		return restore, fmt.Errorf("act as user %d, group %d: %w", u.uid, u.gid, unix.EPERM)
	}
	return restore, nil
}
