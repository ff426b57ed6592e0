package ship

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/keeper"
)

// held is the journal's shipping lock; nothing if it is zero. Who holds it answers the Keepers' pings.
type held struct {
	lock  *os.File
	pings io.Closer // nil where the file system has no sockets
}

// Close implements io.Closer.
func (h held) Close() error {
	if h.pings != nil {
		h.pings.Close()
	}
	return h.lock.Close() // which a nil one has, too
}

// acquire takes the journal's shipping lock, or takes over the one that was left
// to this process by who started it.
func acquire(dir string) (held, error) {
	path := filepath.Join(dir, journal.ShipLockName)
	lock, _ := keeper.Inherited(path)
	if lock == nil {
		var err error
		lock, err = journal.LockShipping(dir)
		if errors.Is(err, journal.ErrShipped) {
			return held{}, ErrHeld
		}
		if err != nil {
			return held{}, err
		}
	}
	pings, err := keeper.Answer(path, nil, nil)
	if err != nil {
		pings = nil // it is not replaced if it hangs, no more
	}
	return held{lock, pings}, nil
}
