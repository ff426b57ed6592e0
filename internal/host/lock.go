package host

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/private"
)

// ErrLocked means that another process has the lock.
var ErrLocked = errors.New("another process has the lock")

// lockStep is the pause between attempts to take a lock.
const lockStep = time.Millisecond

// Lock takes a file's lock (flock(2)): unix.LOCK_EX exclusively, unix.LOCK_SH shared. The
// lock is held until Unlock, or until every process that has the file open closes it.
// Lock returns ErrLocked after wait at the latest; it never blocks in the kernel, where a
// stopped holder would block us.
func Lock(f *os.File, how int, wait time.Duration) error {
	var deadline time.Time
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		now := time.Now()
		if deadline.IsZero() {
			deadline = now.Add(wait)
		}
		if !now.Before(deadline) {
			return ErrLocked
		}
		time.Sleep(min(lockStep, deadline.Sub(now)))
	}
}

// Unlock releases the lock before the file is closed.
func Unlock(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// LockFile takes the lock of the file at path, as Lock does. It makes the file if need
// be, for our user only, but not its directory. A process with the exclusive lock may
// remove the file.
func LockFile(path string, how int, wait time.Duration) (*os.File, error) {
	for deadline := time.Now().Add(wait); ; {
		f, err := private.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		if err := Lock(f, how, time.Until(deadline)); err != nil {
			f.Close()
			return nil, err
		}
		// If the file has been removed meanwhile, nobody else can find its lock.
		if IsFile(f, path) {
			return f, nil
		}
		f.Close()
	}
}

// IsFile reports whether the open file is the one at path.
func IsFile(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(open, there)
}
