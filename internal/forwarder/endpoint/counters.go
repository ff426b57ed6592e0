package endpoint

import (
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Counters counts what arrived. It is safe for concurrent use.
type Counters struct {
	// Bodies and Bytes are what was taken, Spans what the Sink got of it.
	Bodies, Bytes, Spans atomic.Uint64
	// Attributes has what became of attributes (its Reduced, Cut and Dropped).
	Attributes span.Counters
	// TurnedAway counts connections beyond Options.MaxConnections.
	TurnedAway atomic.Uint64
	// Exporter counts spans of the HTTP of runtime-rs's exporter, which traces itself.
	// Nobody misses them.
	Exporter atomic.Uint64
	// Losses counts what was lost, of posts that could not be read one each; nil:
	// nothing.
	Losses *losses.Tally
}
