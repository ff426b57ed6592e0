package forwarder

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Sink takes the agents' spans as they arrive. Its methods are called one at a time for each
// sandbox, concurrently for several. A method that blocks only blocks its sandbox's queue,
// which then fills up and loses spans. A panic costs the span in the call.
type Sink interface {
	// Span takes ownership of a span, in the order of arrival.
	Span(conn ConnInfo, s *span.Span)
	// Closed reports that conn sends no more spans: the agent ended, mostly with its VM. err is
	// nil if the stream ended between two frames; a killed VM leaves another error.
	Closed(conn ConnInfo, err error)
}

// ConnInfo describes a connection from a VM.
type ConnInfo struct {
	// ID is unique within one Forwarder.
	ID uint64
	// Origin is the connection's VM, as far as it is known.
	listen.Origin
	// Accepted is when the Forwarder took the connection.
	Accepted time.Time
}
