package route

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// The file of pending counts: spans, then unread posts, 8 bytes each.
const (
	pendingName = "pending"
	unreadAt    = 8
	pendingSize = 16
)

// OpenPending returns a count in memory that outlives the process. It counts the spans
// that the process that receives for the relays of dir has answered, and has neither
// sent to a relay nor counted as lost. left and unread are what the process before it
// left there: the spans that it had answered, and the posts that it had not read. Both
// are lost.
func OpenPending(dir string) (pending *atomic.Int64, left, unread int64, err error) {
	f, err := openPending(dir)
	if err != nil {
		return nil, 0, 0, err
	}
	defer f.Close()
	memory, err := unix.Mmap(int(f.Fd()), 0, pendingSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("count of pending spans: map %s: %w", f.Name(), err)
	}
	pending = (*atomic.Int64)(unsafe.Pointer(&memory[0])) // mapped until the process ends
	posts := (*atomic.Int64)(unsafe.Pointer(&memory[unreadAt]))
	return pending, max(pending.Swap(0), 0), max(posts.Swap(0), 0), nil
}

func openPending(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, pendingName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("count of pending spans: %w", err)
	}
	// Allocated now: a write to mapped memory without room on the disk kills the process.
	if err := unix.Fallocate(int(f.Fd()), 0, 0, pendingSize); err != nil {
		f.Close()
		return nil, fmt.Errorf("count of pending spans: allocate %s: %w", f.Name(), err)
	}
	return f, nil
}

// Ending records, for the next process, how many posts wait at the addresses of one
// that is about to be killed. The caller calls stuck repeatedly if the process does not
// end, so that nobody waits for it: see abort.
func Ending(dir string, addresses []string, warn func(error)) (stuck func()) {
	if err := leaveUnread(dir, addresses); err != nil {
		warn(fmt.Errorf("what the runtimes' endpoint loses is not counted: %w", err))
	}
	var once sync.Once
	return func() {
		if err := abort(addresses); err != nil {
			once.Do(func() { warn(fmt.Errorf("runtimes may wait for an endpoint that does not end: %w", err)) })
		}
	}
}

func leaveUnread(dir string, addresses []string) error {
	posts := 0
	for _, at := range addresses {
		n, err := unread(at)
		if err != nil {
			return err
		}
		posts += n
	}
	if posts == 0 {
		return nil
	}
	f, err := openPending(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var count [8]byte
	_, _ = f.ReadAt(count[:], unreadAt)
	native := binary.NativeEndian
	native.PutUint64(count[:], native.Uint64(count[:])+uint64(posts))
	if _, err := f.WriteAt(count[:], unreadAt); err != nil {
		return fmt.Errorf("count of pending spans: %w", err)
	}
	return nil
}

// unread returns how many posts the endpoint's process has not read: the connections of
// root and our own user with unread bytes.
func unread(at string) (posts int, err error) {
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
