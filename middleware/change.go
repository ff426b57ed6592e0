package middleware

import (
	"time"

	"go.opentelemetry.io/otel/propagation"
)

// settings are the options that can change while calls pass. A call keeps those that it
// began with, by its method.
type settings struct {
	propagator propagation.TextMapPropagator
	fields     []string // what the propagator may write
	w3c        bool     // the propagator is W3C Trace Context's, with or without baggage
	quiet      []string
	slow       time.Duration
}

// prepare finds out what follows from the options.
func (s *settings) prepare() {
	s.fields = s.propagator.Fields()
	_, s.w3c = s.propagator.(w3c)
}

// Change has calls that begin from now on traced by what these options say: WithPropagator
// and WithQuiet. Others have no effect. A call that has begun keeps what it began with.
func (r *Relay) Change(opts ...Option) {
	r.spans.methods.mu.RLock()
	o := options{settings: *r.spans.methods.settings}
	r.spans.methods.mu.RUnlock()
	for _, opt := range opts {
		opt(&o)
	}
	o.prepare()
	r.spans.methods.change(&o.settings)
}
