package runtimes

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
)

// peer is a process at the other end of a connection to the endpoint, from the
// connection's begin to the end of the last batch of it.
type peer struct {
	socket
	looked chan struct{} // closed when its process has been looked for
	owner  *relay        // whose runtime it is; nil: not known to be anybody's
	held   int           // batches of it that are held
}

// opened says that somebody has connected to the endpoint, which the process has at
// address to, and tells whether to listen to it: not to other users' processes than
// root's and our own, as which runtimes and relays run. It is to be called before the
// connection is served, while the process waits for an answer; it asks the kernel
// for one socket. Who is not listened to, and need not be told of again, counts as one span
// lost: how many it would have sent, nobody knows.
func (r *Router) opened(from, to netip.AddrPort) (welcome bool) {
	p := &peer{looked: make(chan struct{})}
	var err error
	p.socket, err = r.proc.socketOf(from, to)
	switch {
	case err == nil && p.uid != 0 && int(p.uid) != os.Geteuid():
		return r.refuse(fmt.Errorf("a process of user %d is not listened to", p.uid))
	case errors.Is(err, errNoSocket):
		return r.refuse(errors.New("a process that did not wait for an answer is not listened to"))
	case err != nil:
		r.warn(fmt.Errorf("the runtimes' processes cannot be told: %w", err))
	}
	r.mu.Lock()
	r.peers[unmap(from)] = p
	candidates := r.relaysInOrder()
	r.mu.Unlock()
	if p.inode == 0 {
		close(p.looked)
		return true
	}
	r.work.Go(func() {
		defer close(p.looked)
		r.look(p, candidates)
	})
	return true
}

func (r *Router) refuse(err error) bool {
	r.warn(err)
	r.lose(ReasonStranger, 1)
	return false
}

// ended says that a connection has ended. What it brought may be taken afterwards.
func (r *Router) ended(from netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from = unmap(from)
	if p := r.peers[from]; p != nil {
		delete(r.peers, from)
		r.gone.put(from, p)
	}
}

// peer returns who is, or was the last one, at an address, nil if nobody told.
// The caller holds the lock.
func (r *Router) peer(from netip.AddrPort) *peer {
	if p := r.peers[from]; p != nil {
		return p
	}
	return r.gone.get(from)
}

// look finds out whether the peer is the runtime of one of the relays. It is called
// without the lock: with many files open it takes milliseconds.
func (r *Router) look(p *peer, candidates []*relay) {
	for _, c := range candidates {
		r.mu.Lock()
		processes, found := slices.Clone(c.processes), p.owner != nil && r.relays[p.owner]
		r.mu.Unlock()
		if found {
			return
		}
		for _, proc := range processes {
			// In this order: then the file was that process's.
			if !r.proc.has(proc.pid, p.inode) || !proc.alive() {
				continue
			}
			r.mu.Lock()
			if r.relays[c] {
				p.owner = c
			}
			r.mu.Unlock()
			return
		}
	}
}

// lookAgain looks for the processes that a relay has named among those who are there,
// or were, when their batches were held.
func (r *Router) lookAgain(c *relay) {
	r.mu.Lock()
	unknown := make(map[*peer]bool)
	for _, p := range r.peers {
		unknown[p] = true
	}
	for _, b := range r.held.batches {
		if b.from != nil {
			unknown[b.from] = true
		}
	}
	r.mu.Unlock()
	for p := range unknown {
		if p.inode != 0 {
			r.look(p, []*relay{c})
		}
	}
}

// maxGone bounds the connections remembered whose batches may yet be taken.
const maxGone = 1024

// gonePeers are peers whose connections have ended, the last ones.
type gonePeers struct {
	by    map[netip.AddrPort]*peer
	order []netip.AddrPort
}

func (g *gonePeers) put(from netip.AddrPort, p *peer) {
	if g.by == nil {
		g.by = make(map[netip.AddrPort]*peer)
	}
	if _, again := g.by[from]; !again {
		if len(g.order) == maxGone {
			delete(g.by, g.order[0])
			g.order = g.order[1:]
		}
		g.order = append(g.order, from)
	}
	g.by[from] = p
}

func (g *gonePeers) get(from netip.AddrPort) *peer { return g.by[from] }
