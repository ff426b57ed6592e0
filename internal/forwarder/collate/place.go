package collate

import (
	"crypto/sha256"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// place is what a span shares with all that is below it.
type place struct {
	trace trace.TraceID
	// top is the span of the host's that it is all below, if there is one.
	top trace.SpanID
	// traced is the time in which it is recorded; nil: not known.
	traced *tracedRoot
	// shift makes its times the host's; nil: they are, or each span's own follows from
	// its time.
	shift *shift
	// drop is why it is not sent, empty if it is. Then the rest is of no use.
	drop Reason
}

// spot is the place of one span.
type spot struct {
	place
	parent trace.SpanID
	link   trace.SpanContext // optional
}

// spotOf returns where a span belongs that has no parent.
func (c *Collator) spotOf(n *node) spot {
	s, r := n.span, n.rule
	if n.host {
		return c.runtimeSpot(n)
	}
	if r == nil {
		return c.spotOfStray(n)
	}
	m := c.caller(r, s)
	if reason := c.quietness(r, s, m); reason != "" {
		return spot{place: place{drop: reason}}
	}
	in := fits{host: always}
	if m != nil {
		in = fits{host: m.serving(), sure: m.sure}
	}
	shift := c.shiftOf(n, in)
	var at spot
	switch start, end := shift.of(clamped(s.Start)), shift.of(clamped(s.End)); {
	case c.opts.Mode == Isolated:
		at = c.apart(s.TraceID)
	case m == nil || !c.recorded(&m.call):
		at = c.sandbox(s.TraceID, end)
	case m.caused(start):
		at = c.belowCall(&m.call)
	default:
		at, _ = c.spotAt(start, end, 0, s.ContainerID, s.TraceID)
		at.link = m.SpanContext
	}
	at.shift = shift
	return at
}

// spotOfStray returns where a span of the agent's belongs that is a root but no RPC.
func (c *Collator) spotOfStray(n *node) spot {
	s := n.span
	if c.opts.Mode == Isolated {
		at := c.apart(s.TraceID)
		at.shift = c.shiftOf(n, fits{host: always})
		return at
	}
	start, end := c.hostTime(s.Start), c.hostTime(s.End)
	at, m := c.spotAt(start, end, int64(c.opts.Skew), s.ContainerID, s.TraceID)
	in := fits{host: always, start: true}
	if m != nil {
		in.host = m.serving()
	}
	at.shift = c.shiftOf(n, in)
	return at
}

// spotAt returns where something belongs of which only the time is known, by the
// host's clock give or take skew, and perhaps the container; and the call, if it is
// below one. What goes on long after the call in flight at its beginning is not part of
// that, but linked to it.
func (c *Collator) spotAt(start, end, skew int64, container string, guest trace.TraceID) (spot, *call) {
	m, ok := c.calls.during(start, skew, container, func(m *call) bool {
		return !causes[m.Method] || c.isQuiet(m.Method) || !c.recorded(m)
	})
	switch {
	case !ok:
		return c.sandbox(guest, end), nil
	case end > plus(m.end, max(skew, longAfter)):
		at := c.sandbox(guest, end)
		at.link = m.SpanContext
		return at, nil
	}
	return c.belowCall(&m), &m
}

// sandbox returns the place below the sandbox's root of what ended at a moment.
func (c *Collator) sandbox(guest trace.TraceID, end int64) spot {
	switch root := c.roots.at(end); {
	case !root.IsValid():
		return c.apart(guest)
	case !root.IsSampled():
		return spot{place: place{trace: root.TraceID(), drop: Unsampled}}
	default:
		return c.below(root.SpanContext, root)
	}
}

func (c *Collator) below(sc trace.SpanContext, traced *tracedRoot) spot {
	p := place{trace: sc.TraceID(), top: sc.SpanID(), traced: traced}
	return spot{place: p, parent: p.top}
}

// belowCall returns the place below a call. What is done for one that ends after its
// time is recorded to its end, as the call is.
func (c *Collator) belowCall(m *call) spot {
	in := c.roots.that(func(r trace.SpanContext) bool { return r.TraceID() == m.SpanContext.TraceID() })
	if in == nil {
		in = c.roots.at(m.end)
	}
	if m.end > in.end {
		in = &tracedRoot{in.SpanContext, period{in.start, m.end}}
	}
	return c.below(m.SpanContext, in)
}

// in returns the place of something in a trace that the sandbox uses.
func (c *Collator) in(id trace.TraceID, end int64) place {
	p := place{trace: id, traced: c.roots.at(end)}
	if root := c.roots.that(func(r trace.SpanContext) bool { return r.TraceID() == id }); root != nil {
		p.top, p.traced = root.SpanID(), root
		if !root.IsSampled() {
			p.drop = Unsampled
		}
	}
	return p
}

// apart returns the place in a trace of the guest's own.
func (c *Collator) apart(guest trace.TraceID) spot {
	return spot{place: place{trace: c.apartTrace(guest), traced: c.roots.last()}}
}

// apartTrace returns the id of a trace of the guest's own: one that the guest can
// neither choose nor know, unless the sandbox uses the trace that it named.
func (c *Collator) apartTrace(guest trace.TraceID) (id trace.TraceID) {
	if c.calls.isOwn(guest) {
		return guest
	}
	sum := sha256.Sum256(append(c.secret[:], guest[:]...))
	copy(id[:], sum[:])
	return id
}

// caller returns the call that caused an RPC, nil if none is known. A pair that is
// sure tells about the guest's names of execs.
func (c *Collator) caller(r *rpc, s *span.Span) *match {
	if len(r.methods) == 0 {
		return nil
	}
	exec := s.ExecID
	if known, ok := c.execs.get(exec); ok {
		exec = known
	}
	m, ok := c.calls.match(r, s.ContainerID, exec, c.clock.moment(period{clamped(s.Start), clamped(s.End)}), int64(c.opts.Skew))
	if !ok {
		return nil
	}
	if m.kin == sameContainer && r == execProcess {
		c.execs.put(s.ExecID, m.ExecID)
	}
	return &m
}

var execProcess = byRequest[kata.ExecProcess]

// quietness returns Quiet for a span whose cause is quiet and not remarkable. The
// agent does not say whether its RPC failed; the call does.
func (c *Collator) quietness(r *rpc, s *span.Span, m *match) Reason {
	switch {
	case m == nil && !c.quietRPC(r),
		m != nil && (!c.quietCall(&m.call) || m.Failed || c.slowCall(&m.call)),
		c.slow(s) && (m == nil || !kata.Waits(m.Method)):
		return ""
	}
	return Quiet
}

// quietRPC tells that all that can cause an RPC is quiet.
func (c *Collator) quietRPC(r *rpc) bool {
	return len(r.methods) > 0 && !slices.ContainsFunc(r.methods, func(m string) bool { return !c.isQuiet(m) })
}

func (c *Collator) slow(s *span.Span) bool {
	return c.opts.Slow > 0 && s.End > s.Start && s.End-s.Start > uint64(c.opts.Slow)
}

// quietCall tells that a call is recorded only when it fails or is slow.
func (c *Collator) quietCall(m *call) bool { return m.Quiet || c.isQuiet(m.Method) }

func (c *Collator) isQuiet(method string) bool { return slices.Contains(c.opts.Quiet, method) }

// recorded tells that a call's span is sent, or will be.
func (c *Collator) recorded(m *call) bool {
	if !m.SpanContext.IsSampled() {
		return false
	}
	return m.Failed || c.slowCall(m) || !c.quietCall(m)
}

// slowCall reports whether a call is recorded for its length.
func (c *Collator) slowCall(m *call) bool {
	end := m.End
	if end.IsZero() {
		end = c.opts.Now()
	}
	return c.opts.Slow > 0 && end.Sub(m.Start) > c.opts.Slow && !kata.Waits(m.Method)
}
