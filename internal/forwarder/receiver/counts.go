package receiver

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
)

// Reasons for which a span is lost here; forwarder, agent and collate have more
// of them.
const (
	// ReasonVMs: there are too many VMs.
	ReasonVMs = "vms"
	// ReasonClient: the client did not take it.
	ReasonClient = "client"
)

// dropPrefix tells in Drops whose spans they were.
const dropPrefix = "agent: "

// Snapshot is what happened until now. Every span that was delivered is sent, not
// wanted, lost, or still waits.
type Snapshot struct {
	// Snapshot is the forwarder's; Lost has the reasons of all.
	forwarder.Snapshot
	// Sent spans have been taken by the client, placeholders included.
	Sent uint64
	// Unwanted spans are of quiet calls, or of traces or times that are not recorded.
	Unwanted uint64
}

// Snapshot returns the counts; it may be called at any time, also after Close.
func (r *Receiver) Snapshot() Snapshot {
	s := Snapshot{Snapshot: r.forwarder.Snapshot(), Sent: r.count.sent.Load(), Unwanted: r.count.unwanted.Load()}
	for reason, n := range r.count.losses() {
		s.Lost[reason] += n
	}
	return s
}

// count is what the Receiver counts itself.
type count struct {
	sent, unwanted atomic.Uint64

	mu   sync.Mutex
	lost map[string]uint64
	told map[string]uint64 // of the forwarder's losses, so far
}

func newCount() count { return count{lost: make(map[string]uint64), told: make(map[string]uint64)} }

func (c *count) lose(reason string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost[reason] += uint64(n)
}

func (c *count) losses() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.lost)
}

// lose counts spans here and where others read it.
func (r *Receiver) lose(reason string, n int) {
	r.count.lose(reason, n)
	r.opts.Journal.Drop(dropPrefix+reason, n)
}

// dropped counts what the collation does not pass on, and tells others who ask.
func (r *Receiver) dropped(others func(collate.Reason, int)) func(collate.Reason, int) {
	return func(reason collate.Reason, n int) {
		switch reason {
		case collate.Quiet, collate.Unsampled, collate.Off:
			r.count.unwanted.Add(uint64(n))
		default:
			r.lose(string(reason), n)
		}
		if others != nil {
			others(reason, n)
		}
	}
}

// tell passes on what the forwarder has lost since the last time.
func (r *Receiver) tell() {
	lost := r.forwarder.Snapshot().Lost
	r.count.mu.Lock()
	told := r.count.told
	r.count.told = lost
	r.count.mu.Unlock()
	for reason, n := range lost {
		if n > told[reason] {
			r.opts.Journal.Drop(dropPrefix+reason, int(n-told[reason]))
		}
	}
}
