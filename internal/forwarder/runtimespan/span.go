// Package runtimespan is a span of Kata's own runtime, on its way from the host's
// one endpoint, which decodes it (package endpoint), to the relay of its sandbox, which
// gives it its place (package collate).
//
// It decides nothing and does no I/O.
package runtimespan

import "github.com/shimtrace/shimtrace/internal/forwarder/agentwire"

// Span is a span of a runtime. Its attributes have been reduced already.
type Span struct {
	// Span has the ids of the call's container and process, where the span names
	// them, as those of an agent's span. Encoding is zero.
	agentwire.Span

	// Method is the shim's call that the span is, as the task service names it
	// ("Create"); empty for what happens within one.
	Method string
	// Sandbox is the sandbox's id, where the span names it, else empty.
	Sandbox string
}
