package export

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"
)

// reserved are ids for one span. They are used only once, because the span's children
// inherit the context it starts in.
type reserved struct {
	traceID trace.TraceID
	spanID  trace.SpanID
	sampled bool // whatever the sampler says
	used    atomic.Bool
}

type reservedKey struct{}

// ContextWithIDs returns a context in which the next span of a [NewTracerProvider]
// provider gets these ids: as a root span, or as a child in that trace. So a span's ids
// can be known, and have children, before the process that ends it exists. Later spans
// get random ids.
func ContextWithIDs(ctx context.Context, traceID trace.TraceID, spanID trace.SpanID) context.Context {
	return context.WithValue(ctx, reservedKey{}, &reserved{traceID: traceID, spanID: spanID})
}

// ContextWithSampled is [ContextWithIDs] for a span that was sampled when its ids were
// reserved: a sampler that was changed meanwhile does not undo that.
func ContextWithSampled(ctx context.Context, traceID trace.TraceID, spanID trace.SpanID) context.Context {
	return context.WithValue(ctx, reservedKey{}, &reserved{traceID: traceID, spanID: spanID, sampled: true})
}

func takeReserved(ctx context.Context, match func(*reserved) bool) (*reserved, bool) {
	r, ok := ctx.Value(reservedKey{}).(*reserved)
	return r, ok && match(r) && r.used.CompareAndSwap(false, true)
}

// idsIn returns the ids of a span that starts in ctx: in the parent's trace, or in a trace of its
// own if parent is zero. It also reports whether they are reserved for a span that is sampled in
// any case.
func idsIn(ctx context.Context, parent trace.TraceID) (_ trace.TraceID, _ trace.SpanID, sampled bool) {
	r, ok := takeReserved(ctx, func(r *reserved) bool {
		return r.spanID.IsValid() && (r.traceID == parent || !parent.IsValid() && r.traceID.IsValid())
	})
	switch {
	case ok:
		return r.traceID, r.spanID, r.sampled
	case parent.IsValid():
		return parent, newSpanID(), false
	}
	return newTraceID(), newSpanID(), false
}

// Random ids come from math/rand/v2's global generator, which is ChaCha8 seeded by the
// system, and safe and fast from many goroutines.

func newTraceID() (id trace.TraceID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

func newSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}
