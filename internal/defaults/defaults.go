// Package defaults has the bounds that hold where the configuration says nothing, once:
// for package config, which says them to people, and for the packages whose options they
// are, when those are used without a configuration. docs/configuration.md has what each
// is about.
//
// Bounds that nobody can configure are with what they bound.
package defaults

import "time"

// Of [agent.limits]. A real pod sends a few spans a second, 6 kB each, and at most a few
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
	// Hold: the agent sends every 5 s, so what is late by two of its batches is lost or
	// lasts.
	Hold = 15 * time.Second
)

// Of [jaeger].
const (
	JaegerBody = 8 << 20
	JaegerHeld = 8 << 20
)

// Of [journal].
const (
	JournalBytes = 64 << 20
	SegmentBytes = 1 << 20
)
