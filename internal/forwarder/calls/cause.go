package calls

import (
	"math"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// Cause is what caused a span, and what follows for it and for all that is below it.
type Cause struct {
	// Trace is the one that the span belongs in; zero: nothing caused it, or the sandbox
	// is isolated, and it remains in its own.
	Trace trace.TraceID
	// Parent is the host's span that it is all below: a call's, or the sandbox's root.
	// Zero: it is in no trace of the sandbox's, or the trace has no root here.
	Parent trace.SpanID
	// Drop is why it is not sent; empty if it is. Then the rest is of no use.
	Drop Reason
	// Shift makes the guest's times the host's; nil: each span's own follows from its
	// time, or the times are the host's.
	Shift *Shift
	// Link is what asked for the span itself, where that is not part of it.
	Link Link

	window *window // in which it is recorded; nil: that of its time
}

// Link names a span that another is linked to; zero: none.
type Link struct {
	Trace trace.TraceID
	Span  trace.SpanID
}

// LinkTo returns the link to a span.
func LinkTo(sc trace.SpanContext) Link { return Link{sc.TraceID(), sc.SpanID()} }

// longAfter is how long, in nanoseconds, after its parent's end a span begins that it
// cannot be part of.
const longAfter = int64(250 * time.Millisecond)

// Of returns the cause of a span by its name, its ids and its time.
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

// isolated returns what is left of a cause for a span that is not to be below it.
func (cause Cause) isolated(s *Span) Cause {
	own := Cause{Shift: cause.Shift}
	if cause.Drop == Quiet {
		own.Drop = Quiet
	}
	if s.served != nil && cause.Parent == s.served.SpanContext.SpanID() {
		own.Link = LinkTo(s.served.SpanContext)
	}
	return own
}

// ofRequest returns the cause of an agent's span that serves a request, or lasts as long
// as the agent does.
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
	when := shift.of(s.at)
	switch {
	case m.call == nil || !c.recorded(m.call):
		cause = c.root(when.End)
	case m.start <= when.Start && when.Start <= plus(m.end, longAfter):
		cause = c.below(m.call)
	default:
		cause, _ = c.at(when, 0, s.ContainerID)
		cause.Link = LinkTo(m.SpanContext)
	}
	cause.Shift = shift
	return cause
}

// ofThread returns the cause of an agent's span that serves no request, and has no parent:
// what the agent does on a thread of its own.
func (c *Calls) ofThread(s *Span) Cause {
	cause, during := c.at(c.clock.by(s.at), skew, s.ContainerID)
	in := fits{host: always, start: true}
	if during != nil {
		in.host = during.serving()
	}
	cause.Shift = c.shift(s, in)
	return cause
}

// ofRuntime returns the cause of a span of the runtime's that does not follow from its
// parent's.
func (c *Calls) ofRuntime(s *Span) Cause {
	if c.QuietSpan(s) {
		return Cause{Drop: Quiet}
	}
	served := c.serving(s)
	switch {
	case s.IsCall() && c.unremarkable(s, served):
		return Cause{Drop: Quiet}
	case served != nil && (c.recorded(served) || c.slow(s) && !kata.Waits(served.Method) && served.SpanContext.IsSampled()):
		return c.below(served) // a call is at least as slow as its serving
	case !s.IsThread():
		return c.root(s.at.End)
	}
	cause, _ := c.at(s.at, closeEnough, s.ContainerID)
	return cause
}

// Below returns the cause of a span whose parent is a span of the host's, and what it is
// below. What began long after its parent had ended is not part of that, but linked to it.
// It reports false if the parent is no such span.
func (c *Calls) Below(s *Span) (cause Cause, parent trace.SpanID, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	caused, ok := c.of(s.ParentID)
	if !ok {
		return cause, parent, false
	}
	sc := caused.SpanContext
	ended := int64(math.MaxInt64)
	switch {
	case !sc.IsSampled():
		cause = Cause{Trace: sc.TraceID(), Drop: Unsampled}
	case caused.Method == "":
		cause = c.within(sc.TraceID(), 0)
	default:
		cause, ended = c.below(&caused), caused.end
		if !s.IsThread() && c.unremarkable(s, &caused) {
			cause.Drop = Quiet
		}
	}
	cause, within := c.inherit(s, cause, ended)
	if !within {
		cause = c.causeOf(s)
		cause.Link = LinkTo(sc)
		return cause, cause.Parent, true
	}
	return cause, s.ParentID, true
}

// Within returns the cause of an agent's request that has come with a context in a trace
// which the sandbox uses, of a span that nobody here knows: below that, should it come. If
// others have named it in another trace, it cannot be in this one too, and is only linked.
func (c *Calls) Within(s *Span) (cause Cause, parent trace.SpanID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cause = c.within(s.TraceID, c.clock.by(s.at).End)
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

// Instead returns the cause of an agent's request that was caused by another call than by
// the runtime's span that it names: where the Go runtime does not trace any more, its
// requests carry the context of what it did last, or of its root. It reports false if
// there is no better one.
func (c *Calls) Instead(s *Span) (cause Cause, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.guest || !s.IsRequest() || c.runtime.asked.Has(s.ParentID) {
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

// at returns the cause of something of which only the time is known, by the host's clock
// give or take skew, and perhaps the container; and the call, if it is below one. What goes
// on long after the call in flight at its beginning is not part of that, but linked to it.
func (c *Calls) at(when Period, skew int64, container string) (Cause, *call) {
	m := c.during(when.Start, skew, container)
	switch {
	case m == nil:
		return c.root(when.End), nil
	case when.End > plus(m.end, max(skew, longAfter)):
		cause := c.root(when.End)
		cause.Link = LinkTo(m.SpanContext)
		return cause, nil
	}
	return c.below(m), m
}

// root has what ended at a moment below the sandbox's root.
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

// below has something below a call. What is done for one that ends after its window is
// recorded to its end, as the call is.
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

// within has something in a trace that the sandbox uses.
func (c *Calls) within(id trace.TraceID, end int64) Cause {
	cause := Cause{Trace: id, window: c.windows.at(end)}
	if w := c.windows.that(func(r trace.SpanContext) bool { return r.TraceID() == id }); w != nil {
		cause.Parent, cause.window = w.SpanID(), w
		if !w.IsSampled() {
			cause.Drop = Unsampled
		}
	}
	return cause
}

// Inherit returns the cause of a span that has its parent's: with a shift of its own, if
// that is not for all of it. It reports false if the span began long after the parent had
// ended, so that it is the work of another call.
func (c *Calls) Inherit(s *Span, parent Cause, ended int64) (cause Cause, within bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inherit(s, parent, ended)
}

func (c *Calls) inherit(s *Span, cause Cause, ended int64) (Cause, bool) {
	if cause.Shift == nil && s.guest {
		cause.Shift = c.shiftBelow(s)
	}
	later := !c.opts.Isolated && !s.lifeLong && cause.Shift.of(s.at).Start > plus(ended, longAfter)
	return cause, !later || cause.Drop != "" || c.parents.named(s.SpanID) != nil
}

// HoldsThreads reports whether spans that serve no request, and have no parent, may be
// part of one: if it only waits, or is not sent, it is not their cause.
func (c *Calls) HoldsThreads(s *Span) bool {
	return s.request != nil && len(s.request.CausedBy) > 0 && !c.quietRequest(s.request)
}
