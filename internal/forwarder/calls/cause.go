package calls

import (
	"math"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// Cause is what caused a span. It also applies to the spans below that span.
type Cause struct {
	// Trace is the trace that the span belongs to. Zero: nothing caused it, or the sandbox is
	// isolated, so it stays in its own.
	Trace trace.TraceID
	// Parent is the host's span above it: a call's, or the sandbox's root. Zero: the trace is
	// not the sandbox's, or has no root here.
	Parent trace.SpanID
	// Drop is why the span is not sent; empty if it is. Otherwise the rest means nothing.
	Drop Reason
	// Shift turns the guest's times into the host's. Nil: each span's shift follows from its
	// own time, or the times are the host's already.
	Shift *Shift
	// Link is what asked for this span, if the span is not part of it.
	Link Link

	window *window // in which it is recorded; nil: the window of its time
}

// Link names a span to link to; zero: none.
type Link struct {
	Trace trace.TraceID
	Span  trace.SpanID
}

// linkTo returns a link to the span of a context.
func linkTo(sc trace.SpanContext) Link { return Link{sc.TraceID(), sc.SpanID()} }

// longAfter is how long, in nanoseconds, a span may begin after the end of its parent and still
// be part of it.
const longAfter = int64(250 * time.Millisecond)

// Of returns the cause of a span by its name, ids and times.
func (c *Calls) Of(s *Span) Cause {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.causeOf(s)
}

func (c *Calls) causeOf(s *Span) (cause Cause) {
	switch {
	case !s.guest:
		cause = c.ofRuntime(s)
	case s.IsThread():
		cause = c.ofThread(s)
	default:
		cause = c.ofRequest(s)
	}
	if c.opts.Isolated {
		return cause.isolated(s)
	}
	return cause
}

// isolated returns what applies of a cause when the span is not placed below it.
func (cause Cause) isolated(s *Span) Cause {
	own := Cause{Shift: cause.Shift}
	if cause.Drop == Quiet {
		own.Drop = Quiet
	}
	if s.served != nil && cause.Parent == s.served.SpanContext.SpanID() {
		own.Link = linkTo(s.served.SpanContext)
	}
	return own
}

// ofRequest returns the cause of an agent's span that serves a request or is life-long.
func (c *Calls) ofRequest(s *Span) (cause Cause) {
	m := c.caller(s)
	in := fits{host: always}
	if m.call != nil {
		in = fits{host: m.serving(), sure: m.sure}
	}
	if c.unremarkable(s, m.call) {
		return Cause{Drop: Quiet}
	}
	shift := c.shift(s, in)
	when := shift.period(s.at)
	switch {
	case m.call == nil || !c.recorded(m.call):
		cause = c.root(when.End)
	case m.start <= when.Start && when.Start <= plus(m.end, longAfter):
		cause = c.below(m.call)
	default:
		cause, _ = c.at(when, 0, s.ContainerID)
		cause.Link = linkTo(m.SpanContext)
	}
	cause.Shift = shift
	return cause
}

// ofThread returns the cause of an agent's span without a parent that serves no request: the
// agent made it on a thread of its own.
func (c *Calls) ofThread(s *Span) Cause {
	cause, during := c.at(c.clock.by(s.at), skew, s.ContainerID)
	in := fits{host: always, start: true}
	if during != nil {
		in.host = during.serving()
	}
	cause.Shift = c.shift(s, in)
	return cause
}

// ofRuntime returns the cause of a runtime's span that does not inherit its parent's.
func (c *Calls) ofRuntime(s *Span) Cause {
	if c.QuietSpan(s) {
		return Cause{Drop: Quiet}
	}
	served := c.serving(s)
	switch {
	case s.IsCall() && c.unremarkable(s, served):
		return Cause{Drop: Quiet}
	case served != nil && (c.recorded(served) || c.slow(s) && !kata.Waits(served.Method) && served.SpanContext.IsSampled()):
		return c.below(served) // a call takes at least as long as its serving
	case !s.IsThread():
		return c.root(s.at.End)
	}
	cause, _ := c.at(s.at, closeEnough, s.ContainerID)
	return cause
}

// Below returns the cause of a span whose parent is a span of the host, and when the parent
// ended. It reports false if the parent is no span of the host.
func (c *Calls) Below(s *Span) (cause Cause, ended int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ended = math.MaxInt64
	caused, ok := c.of(s.ParentID)
	sc := caused.SpanContext
	switch {
	case !ok:
	case !sc.IsSampled():
		cause = Cause{Trace: sc.TraceID(), Drop: Unsampled}
	case caused.Method == "":
		cause = c.inTrace(sc.TraceID(), 0)
	default:
		cause, ended = c.below(&caused), caused.end
		if !s.IsThread() && c.unremarkable(s, &caused) {
			cause.Drop = Quiet
		}
	}
	return cause, ended, ok
}

// InTrace returns the cause of an agent's request that names an unknown span in one of the
// sandbox's traces: it goes below that span, should it arrive. If requests have named that span
// in another trace, this request is only linked to it.
func (c *Calls) InTrace(s *Span) (cause Cause, parent trace.SpanID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cause = c.inTrace(s.TraceID, c.clock.by(s.at).End)
	m := c.caller(s)
	if m.call != nil && m.SpanContext.TraceID() == s.TraceID && c.recorded(m.call) {
		cause.Parent = m.SpanContext.SpanID()
	}
	if cause.Drop == "" && c.unremarkable(s, m.call) {
		cause.Drop = Quiet
	}
	switch other := c.parents.named(s.ParentID); {
	case s.ParentID == [8]byte{}:
		return cause, cause.Parent
	case other == nil:
		c.parents.byGuest.Put(s.ParentID, &Parent{Cause: cause})
	case other.Trace != cause.Trace:
		cause.Link = Link{other.Trace, s.ParentID}
		return cause, cause.Parent
	}
	return cause, s.ParentID
}

// Instead returns a better cause for an agent's request than the runtime's span that it names.
// Once the Go runtime has stopped tracing, its requests carry the context of its last span, or
// of its root. Instead reports false if it finds no better cause.
func (c *Calls) Instead(s *Span) (cause Cause, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if asked, _ := c.runtime.Get(s.ParentID); !s.guest || !s.IsRequest() || asked.request != "" {
		return cause, false
	}
	m := c.caller(s)
	if !c.unremarkable(s, m.call) {
		if m.call == nil || !c.recorded(m.call) {
			return cause, false
		}
		if where, _ := m.position(c.clock.by(s.at).Start, skew); where > around {
			return cause, false
		}
	}
	return c.causeOf(s), true
}

// at returns the cause of something known only by its time on the host's clock, give or take
// skew, and perhaps by its container. It returns the call too if there is one. What lasts until
// long after the end of the call in flight at its beginning is not part of that call, but
// linked to it.
func (c *Calls) at(when Period, skew int64, container string) (Cause, *call) {
	m := c.during(when.Start, skew, container)
	switch {
	case m == nil:
		return c.root(when.End), nil
	case when.End > plus(m.end, max(skew, longAfter)):
		cause := c.root(when.End)
		cause.Link = linkTo(m.SpanContext)
		return cause, nil
	}
	return c.below(m), m
}

// root returns the sandbox's root at a moment as a cause.
func (c *Calls) root(end int64) Cause {
	switch w := c.windows.at(end); {
	case !w.IsValid():
		return Cause{}
	case !w.IsSampled():
		return Cause{Trace: w.TraceID(), Drop: Unsampled}
	default:
		return Cause{Trace: w.TraceID(), Parent: w.SpanID(), window: w}
	}
}

// below returns a call as a cause. A call that outlasts its window is recorded to its end, and
// so is what it caused.
func (c *Calls) below(caused *call) Cause {
	sc := caused.SpanContext
	w := c.windows.that(func(r trace.SpanContext) bool { return r.TraceID() == sc.TraceID() })
	if w == nil {
		w = c.windows.at(caused.end)
	}
	if caused.end > w.End {
		w = &window{w.SpanContext, Period{w.Start, caused.end}}
	}
	return Cause{Trace: sc.TraceID(), Parent: sc.SpanID(), window: w}
}

// inTrace returns the cause of something in one of the sandbox's traces.
func (c *Calls) inTrace(id trace.TraceID, end int64) Cause {
	cause := Cause{Trace: id, window: c.windows.at(end)}
	if w := c.windows.that(func(r trace.SpanContext) bool { return r.TraceID() == id }); w != nil {
		cause.Parent, cause.window = w.SpanID(), w
		if !w.IsSampled() {
			cause.Drop = Unsampled
		}
	}
	return cause
}

// Inherit returns the cause that a span inherits from its parent, with a shift of its own if
// the parent's cause has none. It reports false if the span began long after the parent ended:
// it is then the work of another call.
func (c *Calls) Inherit(s *Span, cause Cause, ended int64) (inherited Cause, within bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cause.Shift == nil && s.guest {
		cause.Shift = c.shiftBelow(s)
	}
	later := !c.opts.Isolated && !s.lifeLong && cause.Shift.period(s.at).Start > plus(ended, longAfter)
	return cause, !later || cause.Drop != "" || c.parents.named(s.SpanID) != nil
}

// HoldsThreads reports whether spans without a parent that serve no request may be part of this
// request. They are not if the request only waits, or is not recorded.
func (c *Calls) HoldsThreads(s *Span) bool {
	return s.request != nil && len(s.request.CausedBy) > 0 && !c.quietRequest(s.request)
}
