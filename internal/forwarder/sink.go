package forwarder

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Sink takes what the agents send, as it comes. Its methods are called for one sandbox after
// another, for several sandboxes at the same time. One that blocks, blocks its
// sandbox's queue, which fills up and then loses spans; nothing else waits for it.
// A panic costs the span that it is about.
type Sink interface {
	// Span takes a span over, in the order of arrival.
	Span(conn ConnInfo, s *span.Span)
	// Closed says that conn's last span was the last one: the agent ended, mostly
	// with its VM. err is nil if the stream ended between two frames; a VM that was
	// killed leaves another end.
	Closed(conn ConnInfo, err error)
}

// ConnInfo describes a connection from a VM.
type ConnInfo struct {
	// ID tells the connections of one Forwarder apart.
	ID uint64
	// Origin says whose it is, as far as that is known.
	listen.Origin
	// Accepted is when the Forwarder took it.
	Accepted time.Time
}
