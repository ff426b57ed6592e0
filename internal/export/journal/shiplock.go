package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// shipLockName is the lock file in the journal's directory that LockShipping locks.
const shipLockName = "ship.lock"

// ErrShipped is returned by LockShipping while another process ships the journal.
var ErrShipped = errors.New("another process ships this journal")

// LockShipping takes the lock of the one process that ships the journal in dir, without
// waiting. The lock is held until the file is closed, here and in every process that
// has inherited it.
func LockShipping(dir string) (*os.File, error) {
	f, err := host.LockFile(filepath.Join(dir, shipLockName), unix.LOCK_EX, 0)
	if errors.Is(err, host.ErrLocked) {
		return nil, ErrShipped
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return f, nil
}
