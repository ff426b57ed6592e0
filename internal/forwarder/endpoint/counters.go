package endpoint

import (
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Counters counts what has arrived. It is safe for concurrent use.
type Counters struct {
	// Bodies and Bytes count what was decoded, Spans the spans in it that went to the
	// Sink.
	Bodies, Bytes, Spans atomic.Uint64
	// Attributes counts what happened to attributes (Reduced, Cut and Dropped).
	Attributes span.Counters
	// TurnedAway counts connections beyond Options.MaxConnections.
	TurnedAway atomic.Uint64
	// Exporter counts spans of the HTTP client in runtime-rs's exporter, which traces
	// itself. They are left out, and are no loss.
	Exporter atomic.Uint64
	// Losses counts lost spans, a post that could not be read as one; nil: nothing is
	// counted.
	Losses *losses.Tally
}
