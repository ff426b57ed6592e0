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

// exclusive is what only one process of the host can have: the collecting process's lock, socket
// and count.
type exclusive struct {
	dir    string
	lock   *os.File
	left   []*os.File // ports that the starter of this process left to it
	relays *host.Listener

	pending   *atomic.Int64 // see route.OpenPending
	lost      int64         // spans that the previous process lost
	unread    int64         // posts that it had not read
	uncounted error         // why pending does not outlive this process
}

// takeExclusive takes over what a relay left to this process, or takes it afresh.
// It returns [host.ErrLocked] if another process has it.
func takeExclusive(cfg config.Config) (_ *exclusive, err error) {
	p := &exclusive{dir: export.CollectDir(cfg)}
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
