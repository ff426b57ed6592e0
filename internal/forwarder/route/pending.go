package route

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// ReasonEndpointGone counts spans that the endpoint had when it was killed.
const ReasonEndpointGone = "endpoint_gone"

// ReasonEndpointStopped counts posts that the endpoint had not read when it was
// replaced; nobody knows how many spans they had.
const ReasonEndpointStopped = "endpoint_stopped"

// OpenPending returns a count, for the process that holds the lock at LockPath, of what
// it has answered and neither brought to a relay nor counted as lost, in memory that
// outlives the process; and what the one before it has left there: that is lost.
func OpenPending(dir string) (pending *atomic.Int64, left int64, err error) {
	f, err := os.OpenFile(filepath.Join(dir, "pending"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("count of pending spans: %w", err)
	}
	defer f.Close()
	const size = 8
	// The room is taken now: writing to memory without any ends the process.
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return nil, 0, fmt.Errorf("count of pending spans: allocate %s: %w", f.Name(), err)
	}
	memory, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, 0, fmt.Errorf("count of pending spans: map %s: %w", f.Name(), err)
	}
	pending = (*atomic.Int64)(unsafe.Pointer(&memory[0])) // for as long as the process lives
	return pending, max(pending.Swap(0), 0), nil
}

// Unread returns how many posts wait at the endpoint that its process has not read: of
// connections of root and our own user, those with something to be read.
func Unread(at string) (posts int, err error) {
	addr, err := netip.ParseAddrPort(at)
	if err != nil {
		return 0, fmt.Errorf("posts that wait: %w", err)
	}
	waiting, runtimes := make(map[netip.AddrPort]bool), make(map[netip.AddrPort]bool)
	if err := host.Proc("/proc").TCP(addr.Port(), func(s host.TCPSocket) {
		switch {
		case s.Local == addr && !s.Listening && s.Unread > 0:
			waiting[s.Remote] = true
		case s.Remote == addr && s.Inode != 0 && !(host.Holder{UID: s.UID}).Foreign():
			runtimes[s.Local] = true
		}
	}); err != nil {
		return 0, fmt.Errorf("posts that wait: %w", err)
	}
	for from := range waiting {
		if runtimes[from] {
			posts++
		}
	}
	return posts, nil
}
