package forwarder

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Reasons for which a connection is refused.
const (
	// reasonConnections: the sandbox has too many, or opens them too often.
	reasonConnections = "connections"
	// reasonSandboxes: there are too many sandboxes.
	reasonSandboxes = "sandboxes"
	// reasonClosed: the Forwarder was closed.
	reasonClosed = "closed"
)

// Counts is what has happened so far. Every frame that arrived is delivered, queued or lost.
// Every delivered span is sent, unwanted, lost or waiting.
type Counts struct {
	// Connections are open now, Accepted is their number ever.
	Connections int
	Accepted    uint64
	// Bytes were read, Delivered spans given to the Sink.
	Bytes     uint64
	Delivered uint64
	// Queued spans wait for the Sink.
	Queued int
	// Reduced attributes became their size; see agent.Counters.
	Reduced uint64
	// Lost are spans by reason (package losses), Refused are connections.
	Lost    map[losses.Reason]uint64
	Refused map[string]uint64
}

// SandboxCounts are one sandbox's Counts.
type SandboxCounts struct {
	// Sandbox is empty for a VM known only by its CID.
	Sandbox string
	CID     uint32
	Counts
}

// Snapshot has a Forwarder's counts at one moment.
type Snapshot struct {
	// Counts are the sum over all sandboxes, forgotten ones included.
	Counts
	// Sent spans were taken by the journal, placeholders included.
	Sent uint64
	// Unwanted spans are of quiet calls, or of traces or times that are not recorded.
	Unwanted uint64
	// Sandboxes are those with open or recent connections, by name.
	Sandboxes []SandboxCounts
}

// placed counts what became of delivered spans.
type placed struct{ sent, untaken, unwanted atomic.Uint64 }

// dropped counts the spans that a collator drops, and calls others.
func (f *Forwarder) dropped(others func(collate.Reason, int)) func(collate.Reason, int) {
	return func(reason collate.Reason, n int) {
		if lost, ok := lost[reason]; ok {
			f.losses.Add(lost, n)
		} else {
			f.placed.unwanted.Add(uint64(n))
		}
		if others != nil {
			others(reason, n)
		}
	}
}

// lost has the collator's reasons for which a span is lost; with other reasons it is unwanted.
var lost = map[collate.Reason]losses.Reason{collate.Duplicate: losses.Duplicate, collate.Collision: losses.Collision}

// counters are one sandbox's.
type counters struct {
	wire      agent.Counters
	accepted  atomic.Uint64
	bytes     atomic.Uint64
	delivered atomic.Uint64
	refused   atomic.Uint64
}

func (c *counters) lose(r losses.Reason) { c.wire.Losses.Add(r, 1) }

func (c *counters) counts() Counts {
	n := Counts{
		Accepted:  c.accepted.Load(),
		Bytes:     c.bytes.Load(),
		Delivered: c.delivered.Load(),
		Reduced:   c.wire.Reduced.Load(),
		Lost:      c.wire.Losses.Counts(),
		Refused:   make(map[string]uint64),
	}
	put(n.Refused, reasonConnections, c.refused.Load())
	return n
}

// put omits zeros.
func put(m map[string]uint64, reason string, n uint64) {
	if n > 0 {
		m[reason] += n
	}
}

// add adds o, except its losses.
func (c *Counts) add(o Counts) {
	c.Connections += o.Connections
	c.Accepted += o.Accepted
	c.Bytes += o.Bytes
	c.Delivered += o.Delivered
	c.Queued += o.Queued
	c.Reduced += o.Reduced
	for reason, n := range o.Refused {
		put(c.Refused, reason, n)
	}
}

// Snapshot returns the counts. It may be called at any time, even after Close.
func (f *Forwarder) Snapshot() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Snapshot{Counts: Counts{Lost: f.losses.Counts(), Refused: make(map[string]uint64)}}
	s.Sent, s.Unwanted = f.placed.sent.Load(), f.placed.unwanted.Load()
	if n := f.placed.untaken.Load(); n > 0 {
		s.Lost[losses.NotTaken] = n
	}
	s.add(f.forgotten)
	for key, sb := range f.sandboxes {
		n := sb.counts()
		s.add(n)
		s.Sandboxes = append(s.Sandboxes, SandboxCounts{key.sandbox, key.cid, n})
	}
	slices.SortFunc(s.Sandboxes, func(a, b SandboxCounts) int {
		return cmp.Or(cmp.Compare(a.Sandbox, b.Sandbox), cmp.Compare(a.CID, b.CID))
	})
	return s
}
