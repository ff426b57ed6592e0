// Package waterfall turns recorded spans into what a person reads: the runs of a
// sandbox (Index, Story), the tree of one run (Builder, Tree), its picture in a
// terminal (Render), and the same as OTLP/JSON (JSONWriter, WriteJSON).
//
// It accesses no files or network: spans come in as OTLP messages, in any order,
// repeated, incomplete, with clocks that disagree. It trusts none of them: names and
// values come from guests, so every text is made harmless before it reaches a terminal,
// and every result has a bound. Its caller is the operator's tool.
//
// A journal's writers determine its size. So spans come in as bytes and are read field
// by field, and what is kept of them has a bound.
package waterfall

import "go.opentelemetry.io/otel/trace"

// spanKey identifies a span among all traces.
type spanKey struct {
	trace trace.TraceID
	span  trace.SpanID
}

// keyOf returns the key for ids in OTLP's form, and whether both are valid: 16 and 8
// bytes, not all zero.
func keyOf(traceID, spanID []byte) (k spanKey, ok bool) {
	if len(traceID) != len(k.trace) || len(spanID) != len(k.span) {
		return k, false
	}
	copy(k.trace[:], traceID)
	copy(k.span[:], spanID)
	return k, k.trace.IsValid() && k.span.IsValid()
}
