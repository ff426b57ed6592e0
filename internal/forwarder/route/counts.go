package route

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// Reasons for which a connection is closed unread, without a span being lost.
const (
	// turnedStranger: it is of another user's process than the runtimes are.
	turnedStranger = "stranger"
	// turnedGone: it was closed before it was looked at; runtimes wait for an answer.
	turnedGone = "gone"
)

// Snapshot is what happened until now. Every span that arrived has been sent to its
// relay, is lost, queued or held. What is lost unchecked or for want of descriptors had
// not arrived.
type Snapshot struct {
	// Relays are connected now.
	Relays int
	// Arrived spans have been taken, Sent ones written to a relay.
	Arrived, Sent uint64
	// Queued spans wait for their relay, Held ones to be known of which it is.
	Queued, Held int
	// Lost are spans by reason (package losses).
	Lost map[losses.Reason]uint64
	// Turned are connections that were closed unread, by reason.
	Turned map[string]uint64
}

// counts is what the Router counts.
type counts struct {
	losses  *losses.Tally
	pending *atomic.Int64 // spans that arrived and are neither sent nor lost

	mu            sync.Mutex
	arrived, sent uint64
	turned        map[string]uint64
}

// lose counts spans as lost that have arrived.
func (c *counts) lose(r losses.Reason, spans int) {
	c.losses.Add(r, spans)
	c.pending.Add(-int64(max(spans, 0)))
}

// arrive counts spans that have arrived.
func (c *counts) arrive(spans int) {
	c.pending.Add(int64(spans))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arrived += uint64(spans)
}

// send counts spans that have been sent.
func (c *counts) send(spans int) {
	c.mu.Lock()
	c.sent += uint64(spans)
	c.mu.Unlock()
	c.pending.Add(-int64(spans))
}

func (c *counts) snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Snapshot{Arrived: c.arrived, Sent: c.sent, Lost: c.losses.Counts(), Turned: maps.Clone(c.turned)}
}
