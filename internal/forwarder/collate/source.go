package collate

import (
	"math"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// source has the spans that the runtime or the agent has sent, and their tree. As a rule a span
// inherits its parent's cause; a span without a parent, or one that stands alone, has its own.
type source struct {
	*Collator
	origin
	// above is the source whose spans this one's may be below; below is its inverse. Nil: none.
	above, below *source

	spanOf  func(*span.Span) calls.Span
	waiting waiting
	sent    recent.Map[trace.SpanID, sent]
	missing map[trace.SpanID]*missing
	out     batch
	stack   []*node // for send
}

// origin is what differs between the sources.
type origin interface {
	// alone reports whether a span does not inherit its parent's cause.
	alone(n *node) bool
	// root places such a span, or one without a parent, or lets it wait for what decides its
	// cause. place does so by what is known now.
	root(n *node)
	place(n *node)
	// fromAbove places a span by the source above, or by its trace, since its parent is not
	// known here. It reports false if the span must wait for its parent.
	fromAbove(n *node) bool
}

// sent is what is remembered of a sent span.
type sent struct {
	calls.Cause
	parent trace.SpanID
	end    int64 // on the host's clock
	off    bool  // not recorded, though spans below it may be
}

func newSource(c *Collator, spanOf func(*span.Span) calls.Span, out batch) *source {
	return &source{
		spanOf:   spanOf,
		Collator: c,
		waiting:  newWaiting(),
		sent:     recent.New[trace.SpanID, sent](remembered),
		missing:  make(map[trace.SpanID]*missing),
		out:      out,
	}
}

// settle places a span and all below it, or lets it wait for its parent.
func (s *source) settle(n *node) {
	if parent := trace.SpanID(n.ParentID); !parent.IsValid() || s.alone(n) {
		s.root(n)
		return
	}
	s.settleBelow(n)
}

// settleBelow is settle for a span with a parent.
func (s *source) settleBelow(n *node) {
	if parent, known := s.lookup(n.ParentID); known {
		s.follow(n, parent)
		return
	}
	if cause, parent, ok := s.Below(&n.Span); ok {
		s.rememberTrace(n.TraceID, cause)
		s.send(n, cause, parent)
		return
	}
	if s.fromAbove(n) {
		return
	}
	if !s.waiting.join(n, s.waiting.node(n.ParentID), s.now()) {
		s.cut(n)
		s.root(n)
	}
}

// follow places a span below its own parent, unless the parent ended long before.
func (s *source) follow(n *node, parent sent) {
	cause, within := s.Inherit(&n.Span, parent.Cause, parent.end)
	if !within {
		s.detach(n)
		return
	}
	s.rememberTrace(n.TraceID, cause)
	s.send(n, cause, n.ParentID)
}

// detach places a span without the parent that it names, and links it to that.
func (s *source) detach(n *node) {
	cause := s.cause(n)
	named := s.visible(n.ParentID)
	cause.Link = calls.Link{Trace: n.TraceID, Span: named}
	if in, _, known := s.locate(named); known {
		cause.Link.Trace = in
	}
	s.send(n, cause, cause.Parent)
}

// arrived places a span that was expected: it must be in its children's trace.
func (s *source) arrived(n *node, cause calls.Cause) {
	parent := trace.SpanID(n.ParentID)
	alone := !parent.IsValid() || !s.opts.Isolated && s.alone(n)
	below := !alone && !s.settleAbove(n, cause)
	m := s.missing[n.id]
	n.needed = m == nil || m.children > 0
	delete(s.missing, n.id)
	if alone {
		own := s.cause(n)
		if own.Trace != cause.Trace {
			s.sendLinked(n, cause, calls.Link{Trace: own.Trace, Span: own.Parent})
			return
		}
		cause.Shift, cause.Link = own.Shift, own.Link
		s.send(n, cause, own.Parent)
		return
	}
	if below || s.isBelow(parent, n.id) {
		s.stats.Cut++
		s.send(n, cause, cause.Parent)
		return
	}
	in := s
	fromAbove := s.requestFromAbove(n)
	if fromAbove && s.IsRuntime(n.TraceID) {
		in = s.above
	}
	switch at, here, known := s.locate(parent); {
	case in != s && s.opts.Isolated:
		s.sendLinked(n, cause, calls.Link{Trace: n.TraceID, Span: parent})
	case known && at != cause.Trace:
		s.stats.Cut++
		s.sendLinked(n, cause, calls.Link{Trace: at, Span: parent})
	case known && (here || fromAbove):
		s.send(n, cause, parent)
	case !known && fromAbove && in == s:
		s.send(n, cause, cause.Parent)
	default:
		s.await(n, parent, cause, in)
	}
}

// settleAbove places what waits above a span that cannot wait. It reports false if the span
// itself is above it, in a cycle.
func (s *source) settleAbove(n *node, cause calls.Cause) bool {
	parent := trace.SpanID(n.ParentID)
	for above := s.waiting.nodes[parent]; above != nil; above = s.waiting.nodes[parent] {
		top := above.top()
		if top == n {
			return false
		}
		s.infer(top, &cause)
	}
	if s.above != nil {
		s.above.placeNow(parent)
	}
	return true
}

// sendLinked sends a span where its children are, linked to where it belongs by its own
// account.
func (s *source) sendLinked(n *node, cause calls.Cause, link calls.Link) {
	cause.Link = link
	s.send(n, cause, cause.Parent)
}

// requestFromAbove reports whether a span's parent is its caller's, not this source's.
func (s *source) requestFromAbove(n *node) bool { return s.above != nil && n.IsRequest() }

// cause returns a span's own cause.
func (s *source) cause(n *node) calls.Cause { return s.orOwnTrace(s.Of(&n.Span), n.TraceID) }

// expected returns the cause of a span whose children were sent before it arrived.
func (s *source) expected(id trace.SpanID) (calls.Cause, bool) {
	if m := s.missing[id]; m != nil {
		return m.Cause, true
	}
	return s.Named(id)
}

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

// locate returns the trace of any source's span; zero if the span is not sent. here is true if
// the span is in the trace or gets a placeholder there, false if requests have only named it.
func (s *source) locate(id trace.SpanID) (in trace.TraceID, here, known bool) {
	for at := s; at != nil; at = at.above {
		if found, ok := at.lookup(id); ok {
			if found.Drop == "" {
				in = found.Trace
			}
			return in, true, true
		}
	}
	if sc, ok := s.Knows(id); ok {
		return sc.TraceID(), true, true
	}
	cause, named := s.Named(id)
	return cause.Trace, false, named
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
