package middleware

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
)

// Attributes of the calls that were under way when a Switch was turned.
const (
	// BegunBeforeOnKey (shimtrace.begun_before_on): the call began before tracing was switched on.
	// Its span begins then, and its request went without the span's context. OriginalStartKey
	// (shimtrace.original.start_time_unix_nano) is when the call began, in Unix nanoseconds.
	BegunBeforeOnKey = attribute.Key(names.BegunBeforeOn)
	OriginalStartKey = attribute.Key(names.OriginalStart)
	// EndedAfterOffKey (shimtrace.ended_after_off): the call ended after tracing was switched off.
	EndedAfterOffKey = attribute.Key(names.EndedAfterOff)
)

// Switch turns tracing on and off while calls pass. It may be shared by relays and
// interceptors. The zero value is off.
//
// A call that begins while it is off goes on as it came, its metadata unread. The Observer
// is told of it, and if the Switch is turned on before the call has ended, it gets a span
// that begins at that moment, under Observer.Parent; such a call is another *Call when it
// is Answered. A call that begins while it is on gets its span whatever happens until its
// end.
type Switch struct {
	turns atomic.Uint32 // odd while on
	since atomic.Int64  // when it was turned on last, in Unix nanoseconds
}

// Set turns the switch and reports whether that was a change.
func (s *Switch) Set(on bool) (changed bool) { return s.SetAt(on, time.Now()) }

// SetAt is Set as of a moment in the past.
func (s *Switch) SetAt(on bool, at time.Time) (changed bool) {
	for {
		n := s.turns.Load()
		if isOn(n) == on {
			return false
		}
		if on {
			s.since.Store(at.UnixNano())
		}
		if s.turns.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// On reports whether the switch is on.
func (s *Switch) On() bool { return isOn(s.turns.Load()) }

func isOn(turns uint32) bool { return turns%2 == 1 }

// WithSwitch makes tracing depend on a switch. Default, and with nil: it is always on.
func WithSwitch(s *Switch) Option {
	return func(o *options) { o.sw = s }
}

// turns returns how often tracing has been switched; it is on when that is odd.
func (o *options) turns() uint32 {
	if o.sw == nil {
		return 1
	}
	return o.sw.turns.Load()
}

// starts reports whether a call that begins now is to have a span.
func (s *spans) starts(c *Call) bool {
	c.Service, c.Method = c.method.service, c.method.name
	c.turns = s.turns()
	return isOn(c.turns)
}

// caughtUp returns the call, which has ended, with the span that it lacks if tracing has
// been switched on meanwhile, and marked if it was under way when tracing was switched off.
func (s *spans) caughtUp(c *Call) *Call {
	turns := s.turns() - c.turns
	if turns == 0 {
		return c
	}
	if c.span == nil {
		// The observer may still be reading c, which was just forwarded: c is left as it
		// is.
		late := *c
		c = &late
		c.spans = s
		c.Parent, _ = s.observer.Parent(c)
		ctx := trace.ContextWithRemoteSpanContext(context.Background(), c.Parent)
		_, c.span = s.tracer.Start(ctx, c.method.fullName, append(c.method.start[:len(c.method.start):len(c.method.start)],
			trace.WithTimestamp(s.since(c)), trace.WithAttributes(BegunBeforeOnKey.Bool(true), OriginalStartKey.Int64(c.Start.UnixNano())))...)
		turns--
	}
	if turns > 0 && c.span.IsRecording() {
		c.span.SetAttributes(EndedAfterOffKey.Bool(true))
	}
	return c
}

// since returns when the span of a call begins, for a call that began before tracing was
// on.
func (s *spans) since(c *Call) time.Time {
	on := time.Unix(0, s.sw.since.Load())
	switch {
	case on.Before(c.Start):
		return c.Start
	case on.After(c.End):
		return c.End
	}
	return on
}

// recording reports whether the call has a span that is recorded.
func (c *Call) recording() bool { return c.span != nil && c.span.IsRecording() }
