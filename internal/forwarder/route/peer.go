package route

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// peer is the process at the other end of a connection to the endpoint, from the
// connection's beginning to the end of its last batch.
type peer struct {
	socket
	looked chan struct{} // closed when its relay has been looked for
	owner  *relay        // the relay whose runtime it is; nil: not known
	held   int           // how many of its batches are held
}

// ours reports whether runtimes and relays can run as the user: root, or our own.
func ours(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// judge reports whether to admit a connection: only processes of root, of our own user
// and of the given ones are. Connections of strangers, and of processes
// that did not wait for an answer as runtimes do, are counted, but not as losses:
// anyone could inflate these. A process that cannot be identified may have been a
// runtime, so one span of it counts as lost; nobody knows how many it would have sent.
func (r *Router) judge(f found, users []uint32) (welcome bool) {
	switch {
	case errors.Is(f.err, errNoSocket):
		r.turnAway(turnedGone, "a process that did not wait for an answer is not listened to")
	case f.err != nil:
		r.losses.Add(losses.Unchecked, 1)
		r.warn(fmt.Errorf("nobody is listened to of whom it is not known who it is: %w", f.err))
	case !ours(f.uid) && !slices.Contains(users, f.uid):
		r.turnAway(turnedStranger, "a process of user %d is not listened to", f.uid)
	default:
		return true
	}
	return false
}

// turnAway counts a connection that is closed unread, and warns.
func (r *Router) turnAway(reason, format string, args ...any) {
	r.counts.mu.Lock()
	r.turned[reason]++
	r.counts.mu.Unlock()
	if swallowed, ok := r.lines.Allow(reason, ""); ok {
		text := fmt.Sprintf(format, args...)
		if swallowed > 0 {
			text += fmt.Sprintf("; nor were %d others since the last time this was said", swallowed)
		}
		r.opts.Warn(errors.New(text))
	}
}

// opened registers an admitted connection. It is called before the connection is
// served, while the process waits for an answer.
func (r *Router) opened(from netip.AddrPort, s socket) {
	p := &peer{socket: s, looked: make(chan struct{})}
	r.mu.Lock()
	r.peers[unmap(from)] = p
	candidates := r.relaysInOrder()
	r.mu.Unlock()
	r.work.Go(func() {
		defer close(p.looked)
		r.look(p, candidates)
	})
}

// ended marks a connection as closed. Its batches may be taken afterwards.
func (r *Router) ended(from netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from = unmap(from)
	if p := r.peers[from]; p != nil {
		delete(r.peers, from)
		r.gone.Put(from, p)
	}
}

// peer returns the process that is, or was last, connected from an address; nil if none
// is known. The caller holds the lock.
func (r *Router) peer(from netip.AddrPort) *peer {
	if p := r.peers[from]; p != nil {
		return p
	}
	p, _ := r.gone.Get(from)
	return p
}

// look finds out whether the peer is a runtime of one of the candidates. It is called
// without the lock: with many open files it takes milliseconds.
func (r *Router) look(p *peer, candidates []*relay) {
	for _, c := range candidates {
		r.mu.Lock()
		processes, found := slices.Clone(c.processes), p.owner != nil && r.relays[p.owner]
		r.mu.Unlock()
		if found {
			return
		}
		for _, proc := range processes {
			// In this order, the file is known to be this process's.
			if !r.opts.proc.HasSocket(proc.pid, p.inode) || !proc.alive() {
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

// lookAgain looks for the processes that a relay has named among the connected peers
// and those with held batches.
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

// maxGone bounds the closed connections that are remembered because batches of them may
// still be taken.
const maxGone = 1024
