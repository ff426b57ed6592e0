package collate

import (
	"math"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
)

// placement is what was decided about a span.
type placement struct {
	calls.Cause
	// parent is the span above it.
	parent trace.SpanID
	// missing is the source that the parent is expected from, nil if it is known.
	missing *source
	// wait: nothing is decided before parent arrives or, if that is zero, before it is known
	// what caused the span.
	wait bool
}

// below returns the placement directly below a cause.
func below(cause calls.Cause) placement { return placement{Cause: cause, parent: cause.Parent} }

// inference is the cause of spans whose parent is missing; nil: they wait for the parent.
type inference struct {
	calls.Cause
	// clues are what to infer the cause from once it is needed, nil if it is known.
	clues *calls.Span
}

// settle places a top and all below it, or lets it wait.
func (s *source) settle(n *node, inferred *inference) {
	p := s.decide(n, inferred)
	switch {
	case !p.wait:
		s.send(n, p)
	case !p.parent.IsValid():
		s.waiting.hold(n, n.Came)
		s.waiting.undecided[n] = struct{}{}
	case !s.waiting.join(n, s.waiting.node(p.parent)): // its parent is below it
		s.stats.Cut++
		n.ParentID = [8]byte{}
		s.settle(n, inferred)
	}
}

// decide returns where a span goes by what is known now. As a rule a span inherits its parent's
// cause; a span without a parent, or one that stands alone, has its own.
func (s *source) decide(n *node, inferred *inference) placement {
	parent := trace.SpanID(n.ParentID)
	if !parent.IsValid() || s.alone(n) {
		if p, ok := s.early(n); ok {
			return p
		}
		cause := s.cause(n)
		if !parent.IsValid() || !s.opts.Isolated || cause.Drop != "" {
			return below(cause)
		}
		n.link = cause.Link // the runtime's own tree stays
	}
	last := inferred != nil
	// A request's parent is its caller's: what is still missing is not the agent's.
	if above, known := s.lookup(parent); known && (s.missing[parent] == nil || !last || s.above == nil || !n.IsRequest()) {
		return s.follow(n, above)
	}
	if cause, ended, known := s.Below(&n.Span); known {
		return s.follow(n, sent{Cause: cause, end: ended})
	}
	if s.above != nil {
		if p, ok := s.across(n, last); ok {
			return p
		}
	}
	if !last {
		return placement{parent: parent, wait: true}
	}
	return placement{Cause: s.infer(inferred), parent: parent, missing: s}
}

// alone reports whether a span does not inherit its parent's cause. These are the runtime's
// spans for calls of the shim, and those directly below its root: the root is life-long, and
// arrives last or never.
func (s *source) alone(n *node) bool {
	return s.above == nil && (n.IsCall() || s.QuietSpan(&n.Span) || !s.opts.Isolated && s.IsRoot(n.ParentID))
}

// early decides about a span whose cause may not be known yet: the runtime sends its span for a
// call before the call is answered, and the agent sends a thread's span before that of the
// request in which the thread began. It reports false if the cause is as well known as it
// will be.
func (s *source) early(n *node) (p placement, ok bool) {
	switch {
	case n.due:
		return p, false
	case s.above == nil:
		return placement{wait: true}, s.Pending(&n.Span)
	case !n.IsThread() || s.opts.Isolated:
		return p, false
	}
	if in := s.requests.enclosing(n); in != nil {
		if request, ok := s.lookup(in.id); ok && !s.isBelow(in.id, n.id) {
			return placement{Cause: request.Cause, parent: in.id}, true
		}
		if request := s.waiting.nodes[in.id]; request != nil && request.top() != n {
			return placement{parent: in.id, wait: true}, true
		}
	}
	return placement{wait: true}, n.held || len(s.waiting.undecided) < maxThreads
}

// follow places a span below its own parent, unless the parent ended long before.
func (s *source) follow(n *node, above sent) placement {
	cause, within := s.Inherit(&n.Span, above.Cause, above.end)
	if !within {
		return s.detached(n)
	}
	return placement{Cause: cause, parent: n.ParentID}
}

// detached places a span elsewhere than below the parent that it names, and links it
// to that parent.
func (s *source) detached(n *node) placement {
	cause := s.cause(n)
	named := s.visible(n.ParentID)
	cause.Link = calls.Link{Trace: n.TraceID, Span: named}
	if in, known := s.traceOf(named); known {
		cause.Link.Trace = in
	}
	return below(cause)
}

// across places an agent's span whose parent is not the agent's: a request names its caller's
// span, which is the runtime's or of a program that is not known here. It reports false if the
// span must wait for the parent; last: it must not.
func (s *source) across(n *node, last bool) (p placement, ok bool) {
	above, known := s.above.lookup(n.ParentID)
	runtimes := s.IsRuntime(n.TraceID)
	if s.opts.Isolated && (known || runtimes && (last || n.IsRequest())) {
		return s.detached(n), true
	}
	if known {
		if above.Drop == "" && s.above.sent.Has(n.ParentID) {
			if cause, ok := s.Instead(&n.Span); ok {
				return below(s.orOwnTrace(cause, n.TraceID)), true
			}
		}
		return s.follow(n, above), true
	}
	switch {
	case !n.IsRequest():
		return p, false
	case runtimes:
		return placement{Cause: s.cause(n), parent: n.ParentID, missing: s.above}, last
	case !last && s.has(n.ParentID):
		return p, false
	case !last && s.HasTrace(n.TraceID):
		cause, parent := s.InTrace(&n.Span)
		return placement{Cause: cause, parent: parent}, true
	}
	if last {
		s.rememberForeign(n.TraceID)
	}
	if t, _ := s.traces.Get(n.TraceID); !t.foreign {
		return p, false
	}
	return below(s.cause(n)), true
}

// force settles a top that must not wait any longer, with all below it. The children of a
// missing span keep it as their parent, because it may still arrive. Only requests to the agent
// do not: their parent is not the agent's.
func (s *source) force(top *node, inferred *inference) {
	s.stats.Inferred++
	if !top.missing() {
		top.due = true
		s.settle(top, nil)
		return
	}
	if s.above != nil && s.above.forceNamed(top.id) && !top.held {
		return // they followed
	}
	if named, ok := s.Named(top.id); ok {
		inferred = &inference{Cause: named}
	}
	if inferred == nil {
		clues := s.clues(top)
		inferred = &inference{clues: &clues}
	}
	s.wake(top.id, inferred)
}

// forceNamed forces a waiting span for which spans of the source below have waited long enough.
// It reports false if no such span waits.
func (s *source) forceNamed(id trace.SpanID) bool {
	if s.opts.Isolated || !s.waiting.arrived(id) {
		return false
	}
	s.force(s.waiting.nodes[id].top(), nil)
	return true
}

// wake settles the spans that wait for a missing one.
func (s *source) wake(id trace.SpanID, inferred *inference) {
	if top := s.waiting.nodes[id]; top != nil && top.missing() {
		for n := s.waiting.orphans(top); n != nil; {
			next := n.next
			n.next = nil
			s.settle(n, inferred)
			n = next
		}
	}
}

// cause returns a span's own cause.
func (s *source) cause(n *node) calls.Cause { return s.orOwnTrace(s.Of(&n.Span), n.TraceID) }

// find returns a sent span of this source or the one above.
func (s *source) find(id trace.SpanID) (sent, bool) {
	found, ok := s.sent.Get(id)
	if !ok && s.above != nil {
		return s.above.sent.Get(id)
	}
	return found, ok
}

// lookup returns a span of this source that was sent, or whose children were.
func (s *source) lookup(id trace.SpanID) (sent, bool) {
	if found, ok := s.sent.Get(id); ok {
		return found, true
	}
	if m := s.missing[id]; m != nil {
		return sent{Cause: m.Cause, end: math.MaxInt64}, true
	}
	return sent{}, false
}

// traceOf returns the trace that a span is in, or goes to if it arrives; zero if it is dropped.
func (s *source) traceOf(id trace.SpanID) (in trace.TraceID, known bool) {
	for at := s; at != nil; at = at.above {
		if found, ok := at.lookup(id); ok {
			if found.Drop == "" {
				in = found.Trace
			}
			return in, true
		}
	}
	if sc, ok := s.Knows(id); ok {
		return sc.TraceID(), true
	}
	cause, named := s.Named(id)
	return cause.Trace, named
}

// maxDepth bounds the search for a cycle, in levels; the agent's trees have some ten.
const maxDepth = 256

// isBelow reports whether id was sent below top, or is too deep to tell.
func (s *source) isBelow(id, top trace.SpanID) bool {
	for range maxDepth {
		if id == top {
			return true
		}
		found, ok := s.find(id)
		if !ok {
			return false
		}
		id = found.parent
	}
	return true
}

// visible returns the span itself if it is recorded, else the nearest recorded one above it.
func (s *source) visible(id trace.SpanID) trace.SpanID {
	for range maxDepth {
		found, ok := s.find(id)
		if !ok || !found.off {
			break
		}
		if parent, ok := s.find(found.parent); ok && parent.Trace != found.Trace {
			return found.Parent // the parent was named here, then arrived in another trace
		}
		id = found.parent
	}
	return id
}
