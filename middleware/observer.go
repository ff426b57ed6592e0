package middleware

import "go.opentelemetry.io/otel/trace"

// Observer is told of the calls that pass, by whoever relays or intercepts them,
// and says what the span of a call should know beyond the call itself. Its
// methods are called from the goroutines that forward and must not block: Parent
// and Began before the request is forwarded, the others after. Answered and Lost
// may come before or during Forwarded, which is to read no field that an answer
// fills in. None of them changes the Call.
//
// An Observer that needs only some of the methods embeds [NopObserver], which keeps it an
// Observer if methods are added one day.
type Observer interface {
	// Parent returns the span context that the call's span is to be under, and
	// another one that it is to be linked to. It is asked when Call.Caller is known.
	// Without a valid parent the span is under Call.Caller, or the root of a trace of
	// its own. A link leads nowhere, and is left out, if it is not sampled or the
	// parent itself.
	Parent(*Call) (parent, link trace.SpanContext)
	// Began is called when the call has its span.
	Began(*Call)
	// Forwarded is called once the request has been written.
	Forwarded(*Call)
	// Answered is called once the answer has been written, before the span ends.
	Answered(*Call)
	// Lost is called instead when there will be no answer, since Call.End.
	Lost(*Call)
	// Annotate is called for a span that will be recorded, before it ends.
	Annotate(*Call, trace.Span)
}

// WithObserver adds observers of the calls, who are told in the order in which they were
// added. The first one that returns a valid parent decides. Default: nobody.
func WithObserver(obs ...Observer) Option {
	return func(o *options) { o.observer = append(o.observer, obs...) }
}

// NopObserver is an Observer that wants nothing.
type NopObserver struct{}

var _ Observer = NopObserver{}

// Parent implements Observer.
func (NopObserver) Parent(*Call) (parent, link trace.SpanContext) { return }

// Began implements Observer.
func (NopObserver) Began(*Call) {}

// Forwarded implements Observer.
func (NopObserver) Forwarded(*Call) {}

// Answered implements Observer.
func (NopObserver) Answered(*Call) {}

// Lost implements Observer.
func (NopObserver) Lost(*Call) {}

// Annotate implements Observer.
func (NopObserver) Annotate(*Call, trace.Span) {}

// observers are all that are told.
type observers []Observer

var _ Observer = observers{}

func (all observers) Parent(c *Call) (parent, link trace.SpanContext) {
	for _, o := range all {
		if parent, link = o.Parent(c); parent.IsValid() {
			return parent, link
		}
	}
	return trace.SpanContext{}, trace.SpanContext{}
}

func (all observers) Began(c *Call) {
	for _, o := range all {
		o.Began(c)
	}
}

func (all observers) Forwarded(c *Call) {
	for _, o := range all {
		o.Forwarded(c)
	}
}

func (all observers) Answered(c *Call) {
	for _, o := range all {
		o.Answered(c)
	}
}

func (all observers) Lost(c *Call) {
	for _, o := range all {
		o.Lost(c)
	}
}

func (all observers) Annotate(c *Call, span trace.Span) {
	for _, o := range all {
		o.Annotate(c, span)
	}
}
