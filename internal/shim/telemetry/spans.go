package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/errtext"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// Remote returns a context with sc as the parent of what is to come.
func Remote(sc trace.SpanContext) context.Context {
	return trace.ContextWithRemoteSpanContext(context.Background(), sc)
}

// ContainerAttributes returns the attributes of a span that is about a container.
func ContainerAttributes(id string, attrs []attribute.KeyValue) []attribute.KeyValue {
	return append([]attribute.KeyValue{semconv.ContainerID(id)}, attrs...)
}

// Emit makes spans of a timing and what is in it.
func Emit(ctx context.Context, tracer trace.Tracer, t state.Timing, links []trace.Link, attrs ...attribute.KeyValue) {
	ctx, span := tracer.Start(ctx, t.Name, trace.WithTimestamp(t.Start), trace.WithLinks(links...), trace.WithAttributes(attrs...))
	switch {
	case t.Expected:
		span.SetAttributes(attribute.Bool(names.Expected, true), attribute.String(names.ExpectedMessage, errtext.Reduce(t.Error)))
	case t.Error != "":
		span.SetStatus(codes.Error, errtext.Reduce(t.Error))
	}
	for _, child := range t.Children {
		Emit(ctx, tracer, child, nil, attrs...)
	}
	span.End(trace.WithTimestamp(t.End))
}

// EmitRoot exports the root span whose context is in st.
func EmitRoot(tracer trace.Tracer, st *state.State, end time.Time, failure string, attrs ...attribute.KeyValue) {
	sc := st.Trace.SpanContext()
	if !sc.IsSampled() {
		return
	}
	ctx := export.ContextWithSampled(context.Background(), sc.TraceID(), sc.SpanID())
	ctx, opts := above(ctx, sc, st.Cause.SpanContext())
	_, span := tracer.Start(ctx, names.SandboxStart, append(opts, trace.WithTimestamp(st.Started), trace.WithAttributes(attrs...))...)
	if failure != "" {
		span.SetStatus(codes.Error, errtext.Reduce(failure))
	}
	span.End(trace.WithTimestamp(st.Within(end)))
}
