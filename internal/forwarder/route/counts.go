package route

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// Reasons for which a connection is closed unread, without a span being lost.
const (
	// turnedStranger: its process runs as another user than runtimes do.
	turnedStranger = "stranger"
	// turnedGone: it was closed before it was looked at; runtimes wait for an answer.
	turnedGone = "gone"
)

// Snapshot is what has happened so far. Every span that arrived has been sent to its
// relay, or is lost, queued or held. Losses as unchecked or for want of descriptors are
// of posts that had not arrived.
type Snapshot struct {
	// Relays is how many are connected now.
	Relays int
	// Arrived spans have been taken, Sent spans written to a relay.
	Arrived, Sent uint64
	// Queued spans wait for their relay, Held spans for their sandbox to become known.
	Queued, Held int
	// Lost are spans by reason (package losses).
	Lost map[losses.Reason]uint64
	// Turned are connections that were closed unread, by reason.
	Turned map[string]uint64
}

type counts struct {
	losses  *losses.Tally
	pending *atomic.Int64 // spans that arrived and are neither sent nor lost

	mu            sync.Mutex
	arrived, sent uint64
	turned        map[string]uint64
}

// lose counts arrived spans as lost.
func (c *counts) lose(r losses.Reason, spans int) {
	c.losses.Add(r, spans)
	c.pending.Add(-int64(max(spans, 0)))
}

func (c *counts) arrive(spans int) {
	c.pending.Add(int64(spans))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arrived += uint64(spans)
}

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
