package ship

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/export"
	"github.com/shimtrace/shimtrace/export/journal"
)

// acquire takes the journal's shipping lock, or takes over the one that was left
// to this process by who started it.
func acquire(dir string) (*os.File, error) {
	if f := inherited(dir); f != nil {
		return f, nil
	}
	f, err := journal.LockShipping(dir)
	if errors.Is(err, journal.ErrShipped) {
		return nil, ErrHeld
	}
	return f, err
}

// inherited returns the lock that export.ShipLockEnv names. It takes nobody's word
// for it: the descriptor must be the lock file, and its lock must be ours.
func inherited(dir string) *os.File {
	fd, err := strconv.Atoi(os.Getenv(export.ShipLockEnv))
	if err != nil || fd <= 2 {
		return nil
	}
	os.Unsetenv(export.ShipLockEnv)
	var have, want unix.Stat_t
	if unix.Fstat(fd, &have) != nil ||
		unix.Stat(filepath.Join(dir, journal.ShipLockName), &want) != nil ||
		have.Dev != want.Dev || have.Ino != want.Ino ||
		unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), journal.ShipLockName)
}
