package middleware

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"go.opentelemetry.io/contrib/propagators/b3"
	"go.opentelemetry.io/contrib/propagators/jaeger"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Propagator returns the propagator of the given forms, by the names that
// OTEL_PROPAGATORS has for them: "tracecontext", "baggage", "jaeger", "b3",
// "b3multi", "none". When a request carries a context in several forms, the last
// one named wins.
func Propagator(names ...string) (propagation.TextMapPropagator, error) {
	var all []propagation.TextMapPropagator
	for _, name := range names {
		switch name {
		case "tracecontext":
			all = append(all, propagation.TraceContext{})
		case "baggage":
			all = append(all, propagation.Baggage{})
		case "jaeger":
			all = append(all, jaeger.Jaeger{})
		case "b3":
			all = append(all, b3Propagator{b3.New(b3.WithInjectEncoding(b3.B3SingleHeader))})
		case "b3multi":
			all = append(all, b3Propagator{b3.New(b3.WithInjectEncoding(b3.B3MultipleHeader))})
		case "none":
		default:
			return nil, fmt.Errorf("propagator %q is unknown: use tracecontext, baggage, jaeger, b3, b3multi or none", name)
		}
	}
	p := propagation.NewCompositeTextMapPropagator(all...)
	if isW3C(names) {
		return w3c{p}, nil
	}
	return p, nil
}

// b3Propagator is B3 for someone in between, who replaces the context of a request.
type b3Propagator struct{ propagation.TextMapPropagator }

// Extract also reads that the request is not to be traced, which B3 may say without ids.
// Then the request gets ids: only a context can carry a decision.
func (p b3Propagator) Extract(ctx context.Context, c propagation.TextMapCarrier) context.Context {
	before := trace.SpanContextFromContext(ctx)
	ctx = p.TextMapPropagator.Extract(ctx, c)
	if !denied(c) || !trace.SpanContextFromContext(ctx).Equal(before) {
		return ctx // B3's own context has its decision with it
	}
	if !before.IsValid() {
		before = trace.NewSpanContext(trace.SpanContextConfig{TraceID: randomID[trace.TraceID](), SpanID: randomID[trace.SpanID](), Remote: true})
	}
	return trace.ContextWithRemoteSpanContext(ctx, before.WithTraceFlags(before.TraceFlags().WithSampled(false)))
}

// denied reports whether a request says only that it is not to be traced.
func denied(c propagation.TextMapCarrier) bool {
	if single := c.Get("b3"); single != "" {
		return single == "0"
	}
	sampled := c.Get("x-b3-sampled")
	return (sampled == "0" || strings.EqualFold(sampled, "false")) && c.Get("x-b3-traceid") == ""
}

// randomID returns an id that is not zero.
func randomID[ID ~[8]byte | ~[16]byte]() (id ID) {
	for i := range len(id) {
		id[i] = byte(rand.IntN(255) + 1)
	}
	return id
}

// Inject writes valid contexts only. One that is not sampled is written as not sampled,
// whatever the request said: the decision has been made.
func (p b3Propagator) Inject(ctx context.Context, c propagation.TextMapCarrier) {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return
	}
	if !sc.IsSampled() {
		ctx = trace.ContextWithSpanContext(context.Background(), sc)
	}
	p.TextMapPropagator.Inject(ctx, c)
}

// Fields returns the keys of both encodings: both are read, so the one that is not written
// must not stay behind.
func (b3Propagator) Fields() []string {
	return []string{"b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"}
}
