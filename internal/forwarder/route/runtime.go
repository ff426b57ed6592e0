package route

import (
	"net/netip"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/host"
)

// IsRuntime reports whether the process that is connected from an address to a port that
// the Router guards is the runtime of a relay's sandbox. It waits until that has been
// looked at, which takes milliseconds after the connection was made.
func (r *Router) IsRuntime(from netip.AddrPort) bool {
	r.mu.Lock()
	p := r.peer(unmap(from))
	r.mu.Unlock()
	if p == nil {
		return false
	}
	<-p.looked
	r.mu.Lock()
	defer r.mu.Unlock()
	return p.owner != nil && r.relays[p.owner]
}

// IsRuntimeProcess is IsRuntime for a process that is known by PID and Start.
func (r *Router) IsRuntimeProcess(p host.Process) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ownerOf(p) != nil
}

// TakeOf is Take for spans of a process that is known by PID and Start.
func (r *Router) TakeOf(p host.Process, service string, spans []span.Span) {
	looked := make(chan struct{})
	close(looked)
	r.mu.Lock()
	from := &peer{looked: looked, owner: r.ownerOf(p)}
	r.mu.Unlock()
	r.take(from, service, spans)
}

// ownerOf returns the relay whose runtime a process is, nil if it is none. The caller
// holds the lock.
func (r *Router) ownerOf(p host.Process) *relay {
	if p.PID == 0 || p.Start == 0 {
		return nil
	}
	for c := range r.relays {
		for _, proc := range c.processes {
			if proc.pid != p.PID || !proc.alive() {
				continue
			}
			if start, err := r.opts.proc.Start(p.PID); err == nil && start == p.Start {
				return c
			}
		}
	}
	return nil
}
