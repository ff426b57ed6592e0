package ship

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/shimtrace/shimtrace/export/journal"
	"github.com/shimtrace/shimtrace/keeper"
)

// acquire takes the journal's shipping lock, or takes over the one that was left
// to this process by who started it.
func acquire(dir string) (*os.File, error) {
	if f, _ := keeper.Inherited(filepath.Join(dir, journal.ShipLockName)); f != nil {
		return f, nil
	}
	f, err := journal.LockShipping(dir)
	if errors.Is(err, journal.ErrShipped) {
		return nil, ErrHeld
	}
	return f, err
}
