package interpose

import (
	"net"
	"os"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// Seat is what another process needs to keep the place of a VMM's socket after this
// one: our socket, which has the name, and the VMM's own.
type Seat struct {
	Path string    `json:"path"`
	Own  vmmdir.ID `json:"own"`
	VMM  vmmdir.ID `json:"vmm"`

	Listener *net.UnixListener `json:"-"`
	Hold     *os.File          `json:"-"` // the VMM's socket, O_PATH
}

func (s *seat) kept() Seat {
	return Seat{Path: s.path, Own: s.own, VMM: s.vmm, Listener: s.UnixListener, Hold: s.hold}
}

// resume takes over a place that another process has taken. It reports whether the
// place is the sandbox's.
func (i *Interposer) resume(was Seat) bool {
	for _, p := range i.paths {
		for path := range listen.Candidates(p.path) {
			if path != was.Path || p.seat != nil {
				continue
			}
			name := filepath.Base(path)
			p.sit(&seat{
				UnixListener: was.Listener, path: path, name: name, hidden: hiddenName(name, was.Own),
				own: was.Own, vmm: was.VMM, hold: was.Hold, over: make(chan struct{}),
			})
			return true
		}
	}
	return false
}
