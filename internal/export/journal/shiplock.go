package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// shipLockName returns the file in the journal's directory that LockShipping locks.
func shipLockName(target string) string { return "ship" + suffix(target) + ".lock" }

// ErrShipped is returned by LockShipping while another process ships the journal.
var ErrShipped = errors.New("another process ships this journal")

// LockShipping takes the lock of the one process that ships the journal in dir to a target,
// without waiting. The lock is held until the file is closed, here and in every process that
// has inherited it.
func LockShipping(dir, target string) (*os.File, error) {
	f, err := host.LockFile(filepath.Join(dir, shipLockName(target)), unix.LOCK_EX, 0)
	if errors.Is(err, host.ErrLocked) {
		return nil, ErrShipped
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return f, nil
}
