package shim

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/export"
)

// Attributes of the spans that are the beginning and the end of a window.
const (
	forKey    = attribute.Key("shimtrace.switched_on.for") // "30s"
	reasonKey = attribute.Key("shimtrace.switched_off.reason")
)

// attributes names who switched, if anybody did.
func (t turner) attributes() []attribute.KeyValue {
	if t.name == "" {
		return nil
	}
	return []attribute.KeyValue{semconv.UserName(t.name), semconv.UserID(uidText(t.uid))}
}

// emitSwitchedOn makes the root span of a window.
func emitSwitchedOn(tracer trace.Tracer, w *window, by turner, length time.Duration) {
	sc := w.Trace.spanContext()
	if !sc.IsSampled() {
		return
	}
	attrs := by.attributes()
	if length > 0 {
		attrs = append(attrs, forKey.String(length.String()))
	}
	ctx := export.ContextWithIDs(context.Background(), sc.TraceID(), sc.SpanID())
	_, span := tracer.Start(ctx, spanSwitchedOn, trace.WithNewRoot(), trace.WithTimestamp(w.Began), trace.WithAttributes(attrs...))
	span.End(trace.WithTimestamp(w.Began))
}

// emitSwitchedOff makes the span that ends a window.
func emitSwitchedOff(tracer trace.Tracer, w *window, at time.Time, by turner, reason string) {
	sc := w.Trace.spanContext()
	if !sc.IsSampled() {
		return
	}
	attrs := append(by.attributes(), reasonKey.String(reason))
	_, span := tracer.Start(remote(sc), spanSwitchedOff, trace.WithTimestamp(at), trace.WithAttributes(attrs...))
	span.End(trace.WithTimestamp(at))
}
