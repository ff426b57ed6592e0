package export

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"

	"github.com/shimtrace/shimtrace/internal/config"
)

// Sink takes spans that have ended. It must not block, and keeps no span.
type Sink interface {
	Take(scope string, span Ended)
}

// Ended is a span that has ended.
type Ended interface {
	// AppendElement appends the span as one element of ScopeSpans.spans, in OTLP's encoding.
	AppendElement(b []byte) []byte
}

// Provider makes spans by OpenTelemetry's API, as its SDK does, and encodes each once, when it
// has ended. It takes a tenth of the SDK's time and memory, since it does only what a shim needs:
// one resource, one sink, samplers by their configured names, no metrics of itself.
type Provider struct {
	embedded.TracerProvider
	sampler atomic.Pointer[sampler]
	sink    Sink
}

var _ trace.TracerProvider = (*Provider)(nil)

// NewTracerProvider returns a provider whose spans go to the sink, which knows their resource.
//
// Under a parent-based sampler, the default, the children of an unsampled context are
// not recorded.
func NewTracerProvider(cfg config.Trace, sink Sink) *Provider {
	p := &Provider{sink: sink}
	p.SetSampler(cfg)
	return p
}

// SetSampler has spans that begin from now on sampled as configured. A span that has begun
// keeps what was decided.
func (p *Provider) SetSampler(cfg config.Trace) {
	s := newSampler(cfg)
	p.sampler.Store(&s)
}

// Tracer implements [trace.TracerProvider]. Of a scope only the name is kept.
func (p *Provider) Tracer(name string, _ ...trace.TracerOption) trace.Tracer {
	return &tracer{provider: p, scope: name}
}

type tracer struct {
	embedded.Tracer
	provider *Provider
	scope    string
}

// Start implements [trace.Tracer].
func (t *tracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	cfg := trace.NewSpanStartConfig(opts...)
	if ctx == nil {
		ctx = context.Background()
	}
	var parent trace.SpanContext
	if !cfg.NewRoot() {
		parent = trace.SpanContextFromContext(ctx)
	}
	traceID, spanID, decided := idsIn(ctx, parent.TraceID())
	sampled := decided || t.provider.sampler.Load().samples(parent, traceID)
	sc := under(parent, traceID, spanID, sampled)
	if !sampled {
		ctx = trace.ContextWithSpanContext(ctx, sc)
		return ctx, trace.SpanFromContext(ctx)
	}
	s := &span{
		tracer: t, context: sc, parent: parent.SpanID(), parentIsRemote: parent.IsRemote(),
		kind: trace.ValidateSpanKind(cfg.SpanKind()), name: name, start: cfg.Timestamp(),
	}
	if s.start.IsZero() {
		s.start = time.Now()
	}
	for _, l := range cfg.Links() {
		s.AddLink(l)
	}
	if attrs := cfg.Attributes(); allowed(attrs) {
		s.first = lastOfEach(attrs) // in place: cfg has its own copy
	} else {
		s.SetAttributes(attrs...)
	}
	return trace.ContextWithSpan(ctx, s), s
}

// StartUnder is Start for callers that make many spans. It does without the API's contexts and
// options, each of which allocates memory. The attributes have distinct keys. The span keeps the
// slice, so the caller must not change it afterwards.
func (t *tracer) StartUnder(parent trace.SpanContext, kind trace.SpanKind, name string, start time.Time, attrs []attribute.KeyValue) trace.Span {
	traceID, spanID := parent.TraceID(), newSpanID()
	if !parent.IsValid() {
		traceID = newTraceID()
	}
	sampled := t.provider.sampler.Load().samples(parent, traceID)
	sc := under(parent, traceID, spanID, sampled)
	if !sampled {
		return trace.SpanFromContext(trace.ContextWithSpanContext(context.Background(), sc))
	}
	return &span{
		tracer: t, context: sc, parent: parent.SpanID(), parentIsRemote: parent.IsRemote(),
		kind: kind, name: name, start: start, first: attrs,
	}
}

// under returns the context of a span under a parent.
func under(parent trace.SpanContext, traceID trace.TraceID, spanID trace.SpanID, sampled bool) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: parent.TraceFlags().WithSampled(sampled), TraceState: parent.TraceState(),
	})
}
