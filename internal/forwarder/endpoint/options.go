package endpoint

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Sink takes over the spans of one request, in the order of the body; there is at least
// one. peer is the other end of the connection that brought them, service the process's
// name for itself ("kata", "kata-sb-c58a3c91"), at most 256 bytes of UTF-8. One
// goroutine calls it for one request after another, in the order in which they were
// answered. So one call that blocks holds up all later spans.
type Sink func(peer netip.AddrPort, service string, spans []span.Span)

// Options bound what posts may cost and say what is kept. The zero value means the
// defaults named at each field.
type Options struct {
	// Span says which attributes are kept and bounds a span's content.
	Span span.Options

	// MaxBody is the longest request body in bytes, after inflating. Longer ones are
	// refused with 413. Default: package defaults.
	MaxBody int
	// MaxSpans is the most spans taken of one body. Default 16384; the runtimes'
	// exporters send at most 512.
	MaxSpans int

	// QueuedBytes bounds all bodies together that are being read or wait to be decoded.
	// A request that does not fit is refused with 503. Default 32 MiB, and at least
	// MaxBody.
	QueuedBytes int
	// QueuedBodies bounds the bodies that wait to be decoded. Default 4096.
	QueuedBodies int

	// MaxConnections bounds the open connections; more are closed at once. A runtime
	// has one. Default 1024.
	MaxConnections int
	// ReadTimeout bounds the arrival of a request; its headers get a quarter of that.
	// Default 20 s.
	ReadTimeout time.Duration

	// Report is told of the first case of each loss reason; Counters has the rest. nil:
	// nobody is told.
	Report func(losses.Reason, error)
	// Counters counts what happens. Default: a new one.
	Counters *Counters
	// Pending counts the posts that have been answered and are not with the Sink yet.
	// Default: a new counter.
	Pending *atomic.Int64
}

func (o Options) withDefaults() Options {
	defaults.Set(&o.MaxBody, defaults.JaegerBody)
	defaults.Set(&o.MaxSpans, 16384)
	defaults.Set(&o.QueuedBytes, 32<<20)
	o.QueuedBytes = max(o.QueuedBytes, o.MaxBody)
	defaults.Set(&o.QueuedBodies, 4096)
	defaults.Set(&o.MaxConnections, 1024)
	defaults.Set(&o.ReadTimeout, 20*time.Second)
	if o.Counters == nil {
		o.Counters = new(Counters)
	}
	if o.Pending == nil {
		o.Pending = new(atomic.Int64)
	}
	return o
}
