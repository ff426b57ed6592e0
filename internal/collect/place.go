package collect

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/keeper"
)

// place is what a host has once.
type place struct {
	dir    string
	lock   *os.File
	left   []*os.File // by who has started this process
	relays *host.Listener

	pending   *atomic.Int64 // see route.OpenPending
	lost      int64         // spans of the process before
	unread    int64         // posts that it had not read
	uncounted error         // why pending ends with this process
}

// takePlace takes over what a relay has left to us, or takes it itself:
// [host.ErrLocked] if another process has it.
func takePlace(cfg config.Config) (_ *place, err error) {
	p := &place{dir: export.CollectDir(cfg)}
	if err := route.MakeDir(p.dir); err != nil {
		return nil, err
	}
	path := export.CollectLock(cfg)
	if p.lock, p.left = keeper.Inherited(path); p.lock == nil {
		if p.lock, err = host.LockFile(path, unix.LOCK_EX, 0); err != nil {
			return nil, err
		}
	}
	if p.relays, err = route.Listen(p.dir); err != nil {
		p.lock.Close()
		return nil, err
	}
	if p.pending, p.lost, p.unread, p.uncounted = route.OpenPending(p.dir); p.uncounted != nil {
		p.pending = new(atomic.Int64)
	}
	return p, nil
}
