package listen

import (
	"net"
	"os"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// Socket is what another process needs to go on listening at a socket in a VMM's
// directory.
type Socket struct {
	Path  string    `json:"path"`
	ID    vmmdir.ID `json:"id"`
	Owner uint32    `json:"owner"` // the directory's uid

	Listener *net.UnixListener `json:"-"`
}

func (s *socketFile) kept() Socket {
	return Socket{Path: s.path, ID: s.id, Owner: s.owner, Listener: s.UnixListener}
}

// allowed returns who may connect to a socket in a user's directory.
func allowed(owner uint32, extra []uint32) []uint32 {
	return append([]uint32{0, uint32(os.Geteuid()), owner}, extra...)
}

// resume takes over a socket that another process has left. It reports whether the socket
// is the sandbox's.
func (h *Hybrid) resume(was Socket) bool {
	for _, p := range h.places {
		for path := range Candidates(p.spot.path) {
			if path == was.Path && p.socket == nil {
				p.socket = &socketFile{
					UnixListener: was.Listener, path: path, id: was.ID, owner: was.Owner, users: allowed(was.Owner, h.opts.Users),
				}
				return true
			}
		}
	}
	return false
}
