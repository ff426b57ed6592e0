// Package waterfall turns recorded spans into what a person reads: which runs of
// a sandbox there are (Index, Story), the tree of one of them (Builder, Tree), its
// picture in a terminal (Render), and the same as OTLP/JSON (JSONWriter, WriteJSON).
//
// It reads and writes no file and asks nobody: spans come in as OTLP messages,
// in any order, repeated, incomplete, with clocks that disagree. It trusts none
// of them: names and values come out of guests, so every text is made harmless
// before it reaches a terminal, and every result has a bound. The operator's
// tool is its caller.
//
// Journals are as large as others made them, so spans come in as bytes and are read
// field by field: what is kept of them has a bound.
package waterfall

import "go.opentelemetry.io/otel/trace"

// spanKey identifies a span among all traces.
type spanKey struct {
	trace trace.TraceID
	span  trace.SpanID
}

// keyOf returns the key of ids as OTLP carries them, and whether both are valid:
// 16 and 8 bytes, not all zero.
func keyOf(traceID, spanID []byte) (k spanKey, ok bool) {
	if len(traceID) != len(k.trace) || len(spanID) != len(k.span) {
		return k, false
	}
	copy(k.trace[:], traceID)
	copy(k.span[:], spanID)
	return k, k.trace.IsValid() && k.span.IsValid()
}
