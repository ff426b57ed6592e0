package route

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Reasons for which a span is lost at the endpoint, once it has been decoded.
const (
	// ReasonUnknownSandbox: nothing told of which sandbox it is, in time.
	ReasonUnknownSandbox = "unknown_sandbox"
	// ReasonUnchecked: who connected could not be told, and so was not listened to.
	ReasonUnchecked = "unchecked"
	// ReasonNoDescriptors: the endpoint could open no more files.
	ReasonNoDescriptors = "no_descriptors"
	// ReasonHeldFull: the same, and there was no room to wait.
	ReasonHeldFull = "held_full"
	// ReasonQueueFull: the sandbox's relay did not keep up.
	ReasonQueueFull = "queue_full"
	// ReasonRelayGone: the sandbox's relay ended before it had taken it.
	ReasonRelayGone = "relay_gone"
	// ReasonTooLarge: it is longer than a relay takes.
	ReasonTooLarge = "too_large"
	// ReasonShutdown: the endpoint ended before its relay had taken it.
	ReasonShutdown = "shutdown"
)

// Reasons for which a connection is closed unread, without a span being lost.
const (
	// TurnedStranger: it is of another user's process than the runtimes are.
	TurnedStranger = "stranger"
	// TurnedGone: it was closed before it was looked at; runtimes wait for an answer.
	TurnedGone = "gone"
)

// Drops counts spans that are lost; a journal is one.
type Drops interface {
	Drop(reason string, spans int)
}

// dropPrefix tells in Drops whose spans they were.
const dropPrefix = "runtime: "

// DropReason is a reason, of this package or of package endpoint, as Drops is told it.
func DropReason(reason string) string { return dropPrefix + reason }

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
	// Lost are spans by reason.
	Lost map[string]uint64
	// Turned are connections that were closed unread, by reason.
	Turned map[string]uint64
}

// counts is what the Router counts.
type counts struct {
	drops   Drops
	pending *atomic.Int64 // spans that arrived and are neither sent nor lost

	mu            sync.Mutex
	arrived, sent uint64
	lost, turned  map[string]uint64
}

// lose counts spans as lost that have arrived.
func (c *counts) lose(reason string, spans int) {
	if spans <= 0 {
		return
	}
	c.loseUnseen(reason, spans)
	c.pending.Add(-int64(spans))
}

// loseUnseen counts spans as lost that have not arrived.
func (c *counts) loseUnseen(reason string, spans int) {
	c.mu.Lock()
	c.lost[reason] += uint64(spans)
	c.mu.Unlock()
	if c.drops != nil {
		c.drops.Drop(DropReason(reason), spans)
	}
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
	return Snapshot{Arrived: c.arrived, Sent: c.sent, Lost: maps.Clone(c.lost), Turned: maps.Clone(c.turned)}
}
