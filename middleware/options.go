package middleware

import (
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Option changes how calls are traced.
type Option func(*options)

type options struct {
	settings
	provider trace.TracerProvider
	kind     trace.SpanKind
	known    func(service, name string) Method
	observer observers
	expected func(*Call) bool // nil: none is
	sw       *Switch          // nil: always on
	onError  func(error)
	ended    func(End) // nil: nobody is told
	handover *Handover // nil: a connection ends with the process
}

func newOptions(kind trace.SpanKind, opts []Option) *options {
	o := &options{kind: kind, known: ContainerdMethod, onError: otel.Handle}
	for _, opt := range opts {
		opt(o)
	}
	if o.provider == nil {
		o.provider = otel.GetTracerProvider()
	}
	if o.propagator == nil {
		o.propagator = otel.GetTextMapPropagator()
	}
	return o
}

// WithTracerProvider sets where spans go. Default: the global provider.
func WithTracerProvider(p trace.TracerProvider) Option {
	return func(o *options) { o.provider = p }
}

// WithPropagator sets the forms in which contexts are read from and written into
// requests; see Propagator. Default: the global propagator.
func WithPropagator(p propagation.TextMapPropagator) Option {
	return func(o *options) { o.propagator = p }
}

// WithSpanKind sets the kind of the spans. Default: server for a Relay and the
// server interceptor, client for the client interceptor.
func WithSpanKind(k trace.SpanKind) Option {
	return func(o *options) { o.kind = k }
}

// WithQuiet names methods ("State", or in full "containerd.task.v3.Task/State")
// whose calls are recorded only when they fail or take longer than slow (0:
// never for being slow). The context that a quiet request carries on is marked as
// not sampled, so that what it causes is quiet too. Default: none.
func WithQuiet(slow time.Duration, methods ...string) Option {
	return func(o *options) { o.slow, o.quiet = slow, methods }
}

// WithExpected says which failed calls belong to a healthy life: their spans are marked
// (ExpectedKey) and have no error. It is asked once for each call that was answered with
// a code other than 0, or whose connection ended first (Call.Closed), before the Observer
// is told, and must not block. Default: every failure is one.
func WithExpected(expected func(*Call) bool) Option {
	return func(o *options) { o.expected = expected }
}

// WithErrorHandler sets who is told what went wrong in tracing; calls go on
// unharmed. Default: otel.Handle.
func WithErrorHandler(f func(error)) Option {
	return func(o *options) { o.onError = f }
}
