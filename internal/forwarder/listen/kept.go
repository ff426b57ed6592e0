package listen

import (
	"context"
	"net"
	"sync"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
)

// Socket is what another process needs to listen at a socket after this process.
// Connections that wait there do not notice the change.
type Socket struct {
	Path  string    `json:"path"`
	ID    vmmdir.ID `json:"id"` // of the socket's file
	Dir   vmmdir.ID `json:"dir"`
	Owner uint32    `json:"owner"` // of the directory

	Listener *net.UnixListener `json:"-"`
}

// kept returns what another process needs for the socket.
func (s *socketFile) kept() Socket {
	return Socket{Path: s.path, ID: s.id, Dir: s.dir, Owner: s.owner, Listener: s.UnixListener}
}

// resume listens at a socket that another process has bound, if the socket is the
// sandbox's.
func (h *Hybrid) resume(b Socket) {
	for _, p := range h.listeners {
		if p.socket == nil && p.spot.is(b.Path) {
			h.opts.Listening(b)
			p.listen(b.socketFile(h.opts.Users))
			return
		}
	}
	b.Listener.Close()
	h.opts.Left(b)
}

func (b Socket) socketFile(users []uint32) *socketFile {
	return &socketFile{UnixListener: b.Listener, path: b.Path, id: b.ID, dir: b.Dir, owner: b.Owner, users: allowed(b.Owner, users)}
}

// TurnAway accepts connections and closes them at once. It is for a process that has
// nobody to hand them to: an agent whose connection is refused may not start. stop ends
// it and removes the socket.
func (b Socket) TurnAway() (stop func()) {
	var over sync.WaitGroup
	over.Go(func() {
		_ = host.AcceptAll(context.Background(), b.Listener.AcceptUnix, func(c *net.UnixConn) { c.Close() }, func(error) {})
	})
	return func() {
		b.socketFile(nil).remove()
		b.Listener.Close()
		over.Wait()
	}
}
