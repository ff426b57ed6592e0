package collate

import (
	"crypto/sha256"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/forwarder/agentwire"
)

// place is what a span shares with all that is below it.
type place struct {
	trace trace.TraceID
	// top is the span of the host's that it is all below, if there is one.
	top trace.SpanID
	// offset is added to its times. It is one for all of them, so that they keep
	// their relation.
	offset int64
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
		if c.opts.Mode == Isolated {
			return c.apart(s.TraceID)
		}
		return c.spotAt(int64(shifted(s.Start, c.skew.offset)), int64(shifted(s.End, c.skew.offset)), int64(c.opts.Skew), s.ContainerID, s.TraceID)
	}
	m := c.caller(r, s)
	if reason := c.quietness(r, s, m); reason != "" {
		return spot{place: place{drop: reason}}
	}
	switch {
	case c.opts.Mode == Isolated:
		return c.apart(s.TraceID)
	case m != nil && c.recorded(&m.call):
		return c.below(m.SpanContext)
	}
	return c.sandbox(s.TraceID, int64(shifted(s.End, c.skew.offset)))
}

// spotAt returns where something belongs of which only the time is known, by the
// host's clock give or take skew, and perhaps the container.
func (c *Collator) spotAt(at, end, skew int64, container string, guest trace.TraceID) spot {
	m, ok := c.calls.during(at, skew, container, func(m *call) bool {
		return !causes[m.Method] || c.isQuiet(m.Method) || !c.recorded(m)
	})
	if ok {
		return c.below(m.SpanContext)
	}
	return c.sandbox(guest, end)
}

// pastRoot is a root that the sandbox had until a moment.
type pastRoot struct {
	trace.SpanContext
	until int64
}

// maxPast bounds those remembered.
const maxPast = 8

// rootAt returns the sandbox's root for what ended at a moment by the host's clock.
func (c *Collator) rootAt(end int64) trace.SpanContext {
	for _, p := range c.past {
		if end < p.until {
			return p.SpanContext
		}
	}
	return c.opts.Root
}

// rootThat returns the sandbox's root that is meant, the one that is or one before.
func (c *Collator) rootThat(means func(trace.SpanContext) bool) (trace.SpanContext, bool) {
	if root := c.opts.Root; root.IsValid() && means(root) {
		return root, true
	}
	for _, p := range c.past {
		if means(p.SpanContext) {
			return p.SpanContext, true
		}
	}
	return trace.SpanContext{}, false
}

// sandbox returns the place below the sandbox's root of what ended at a moment.
func (c *Collator) sandbox(guest trace.TraceID, end int64) spot {
	switch root := c.rootAt(end); {
	case !root.IsValid():
		return c.apart(guest)
	case !root.IsSampled():
		return spot{place: place{trace: root.TraceID(), drop: Unsampled}}
	default:
		return c.below(root)
	}
}

func (c *Collator) below(sc trace.SpanContext) spot {
	p := place{trace: sc.TraceID(), top: sc.SpanID(), offset: c.skew.offset}
	return spot{place: p, parent: p.top}
}

// in returns the place of something in a trace that the sandbox uses.
func (c *Collator) in(id trace.TraceID) place {
	p := place{trace: id, offset: c.skew.offset}
	if root, ok := c.rootThat(func(r trace.SpanContext) bool { return r.TraceID() == id }); ok {
		p.top = root.SpanID()
		if !root.IsSampled() {
			p.drop = Unsampled
		}
	}
	return p
}

// apart returns the place in a trace of the guest's own.
func (c *Collator) apart(guest trace.TraceID) spot {
	return spot{place: place{trace: c.apartTrace(guest)}}
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
// sure tells about the guest's clock, and about its names of execs.
func (c *Collator) caller(r *rpc, s *agentwire.Span) *match {
	if len(r.methods) == 0 {
		return nil
	}
	exec := s.ExecID
	if known, ok := c.execs.get(exec); ok {
		exec = known
	}
	start := int64(shifted(s.Start, c.skew.offset))
	m, ok := c.calls.match(r, s.ContainerID, exec, start, int64(c.opts.Skew))
	if !ok {
		return nil
	}
	if m.sure {
		c.skew.observe(m.bounds(int64(s.Start), int64(s.End)))
	}
	if m.kin == sameContainer && r == execProcess {
		c.execs.put(s.ExecID, m.ExecID)
	}
	return &m
}

var execProcess = rpcs["exec_process"]

// quietness returns Quiet for a span whose cause is quiet and not remarkable. The
// agent does not say whether its RPC failed; the call does.
func (c *Collator) quietness(r *rpc, s *agentwire.Span, m *match) Reason {
	switch {
	case m == nil && !c.quietRPC(r),
		m != nil && (!c.quietCall(&m.call) || m.Failed),
		c.slow(s) && (m == nil || !endless[m.Method]):
		return ""
	}
	return Quiet
}

// quietRPC tells that all that can cause an RPC is quiet.
func (c *Collator) quietRPC(r *rpc) bool {
	return len(r.methods) > 0 && !slices.ContainsFunc(r.methods, func(m string) bool { return !c.isQuiet(m) })
}

func (c *Collator) slow(s *agentwire.Span) bool {
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
	end := m.End
	if end.IsZero() {
		end = c.opts.Now()
	}
	slow := c.opts.Slow > 0 && end.Sub(m.Start) > c.opts.Slow && !endless[m.Method]
	return m.Failed || slow || !c.quietCall(m)
}
