package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"
)

// Fields of a log's line, as OpenTelemetry names them in logs that are not OTLP
// (specification, compatibility/logging_trace_context.md).
const (
	logTraceID = "trace_id"
	logSpanID  = "span_id"
)

// Correlation says which trace a log's lines belong to.
type Correlation struct {
	current atomic.Pointer[func() trace.SpanContext]
}

// Correlate returns a log whose lines name the trace and the span of their context, or else
// those of the Correlation, if they are recorded.
func Correlate(log *slog.Logger) (*slog.Logger, *Correlation) {
	c := new(Correlation)
	return slog.New(correlating{log.Handler(), c}), c
}

// To has lines name what current returns when they are written. It must not block or log.
func (c *Correlation) To(current func() trace.SpanContext) { c.current.Store(&current) }

type correlating struct {
	slog.Handler
	*Correlation
}

// Handle implements slog.Handler.
func (h correlating) Handle(ctx context.Context, r slog.Record) error {
	sc := trace.SpanContextFromContext(ctx)
	if current := h.current.Load(); !sc.IsSampled() && current != nil {
		sc = (*current)()
	}
	if sc.IsValid() && sc.IsSampled() {
		r = r.Clone()
		r.AddAttrs(slog.String(logTraceID, sc.TraceID().String()), slog.String(logSpanID, sc.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h correlating) WithAttrs(attrs []slog.Attr) slog.Handler {
	return correlating{h.Handler.WithAttrs(attrs), h.Correlation}
}

// WithGroup implements slog.Handler.
func (h correlating) WithGroup(name string) slog.Handler {
	return correlating{h.Handler.WithGroup(name), h.Correlation}
}
