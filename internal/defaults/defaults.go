// Package defaults has the bounds that apply when the configuration sets none. Package
// config takes them from here, and so do the packages whose options they are, when used
// without a configuration. docs/configuration.md explains each.
//
// Bounds that cannot be configured are in the package that applies them. Set is for these as
// well.
package defaults

import "time"

// Set gives an option its default unless it is positive.
func Set[T int | time.Duration](option *T, value T) {
	if *option <= 0 {
		*option = value
	}
}

// Of [agent.limits]. A real pod sends a few spans a second, 6 kB each, at most a few
// hundred at once.
const (
	FrameBytes     = 1 << 20
	ValueBytes     = 4 << 10
	SpansPerSecond = 250
	SpanBurst      = 2048
	BytesPerSecond = 1 << 20
	ByteBurst      = 10 << 20
	Connections    = 4 // an agent has one
	QueuedSpans    = 2048
	QueuedBytes    = 4 << 20
	HeldSpans      = 4096
	HeldBytes      = 8 << 20
	// Hold: the agent sends every 5 s, so a span that is two batches late is lost or
	// still running.
	Hold = 15 * time.Second
)

// Of [jaeger].
const (
	JaegerBody = 8 << 20
	JaegerHeld = 8 << 20
)

// Of [otlp]. A kubelet and a containerd that trace everything send some thousand spans,
// 1 MB, a second while pods start.
const (
	OTLPBody           = 8 << 20
	OTLPBytesPerSecond = 32 << 20
)

// Of [journal].
const (
	JournalBytes = 64 << 20
	SegmentBytes = 1 << 20
)
