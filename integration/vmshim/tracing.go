package vmshim

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// startTracing begins a sandbox's trace, as Kata's Go runtime with tracing on:
// one root for the sandbox's life, each call of the shim its child. Kata's client
// puts the context into every request; it takes the provider and propagator from
// the globals. Nobody gets the spans. Without tracing there is no context.
func startTracing(ctx context.Context, on bool) (context.Context, trace.Span) {
	if on {
		otel.SetTracerProvider(sdktrace.NewTracerProvider())
		otel.SetTextMapPropagator(propagation.TraceContext{})
	}
	return otel.Tracer("kata").Start(ctx, "rootSpan")
}

// trace starts the span of a call.
func (sb *sandbox) trace(name string) (_ context.Context, end func()) {
	ctx, span := otel.Tracer("kata").Start(sb.ctx, name)
	return ctx, func() { span.End() }
}

// span is trace for what must not take longer than Kata lets it.
func (sb *sandbox) span(name string) (_ context.Context, end func()) {
	ctx, endSpan := sb.trace(name)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	return ctx, func() { cancel(); endSpan() }
}
