package collate

import (
	"math"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// source is what one source of spans has sent, the runtime or the agent, and the tree that
// becomes of it. As a rule a span has its parent's cause; what has no parent, or stands
// alone, is asked for its own.
type source struct {
	*Collator
	origin
	// above is the source whose spans this one's may be below, below the one that is below
	// this; nil: there is none.
	above, below *source

	spanOf  func(*span.Span) calls.Span
	waiting waiting
	sent    recent.Map[trace.SpanID, sent]
	missing map[trace.SpanID]*missing
	out     batch
	stack   []*node // of send
}

// origin is in what the sources differ.
type origin interface {
	// alone reports whether a span's cause does not follow from its parent's.
	alone(n *node) bool
	// root places such a span, or one without a parent, or has it wait for what decides
	// its cause. place does so by what is known by now.
	root(n *node)
	place(n *node)
	// fromAbove places a span by the source above, or by its trace, since its parent is not
	// known here. It reports false if the parent is to be waited for.
	fromAbove(n *node) bool
}

// sent is what is remembered of a span that got its place.
type sent struct {
	calls.Cause
	parent trace.SpanID
	end    int64 // by the host's clock
	off    bool  // it is not recorded, though what is below it may be
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

// settle gives a span its place, and so all below it, or has it wait for what is
// above it.
func (s *source) settle(n *node) {
	if parent := trace.SpanID(n.ParentID); !parent.IsValid() || s.alone(n) {
		s.root(n)
		return
	}
	s.settleBelow(n)
}

// settleBelow does so for a span with a parent.
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

// follow places a span under its own parent, unless that had ended long before.
func (s *source) follow(n *node, parent sent) {
	cause, within := s.Inherit(&n.Span, parent.Cause, parent.end)
	if !within {
		s.detach(n)
		return
	}
	s.rememberTrace(n.TraceID, cause)
	s.send(n, cause, n.ParentID)
}

// detach places a span by what is known of it without what it names as its parent, to
// which it is linked.
func (s *source) detach(n *node) {
	cause := s.cause(n)
	named := s.visible(n.ParentID)
	cause.Link = calls.Link{Trace: n.TraceID, Span: named}
	if in, _, known := s.locate(named); known {
		cause.Link.Trace = in
	}
	s.send(n, cause, cause.Parent)
}

// arrived places a span that was expected: it must be in the trace of its children.
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

// settleAbove gives a place to what waits above a span that cannot. It reports false if
// that is the span itself.
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

// sendLinked sends a span that must be where its children are, linked to what it belongs
// to by its own account.
func (s *source) sendLinked(n *node, cause calls.Cause, link calls.Link) {
	cause.Link = link
	s.send(n, cause, cause.Parent)
}

// requestFromAbove reports whether what a span names as its parent is not this source's,
// but who asked.
func (s *source) requestFromAbove(n *node) bool { return s.above != nil && n.IsRequest() }

// cause returns the cause of a span by itself.
func (s *source) cause(n *node) calls.Cause { return s.orOwnTrace(s.Of(&n.Span), n.TraceID) }

// expected returns the cause of a span that was missing when what names it as its
// parent was sent.
func (s *source) expected(id trace.SpanID) (calls.Cause, bool) {
	if m := s.missing[id]; m != nil {
		return m.Cause, true
	}
	return s.Named(id)
}

// find returns a span that has been sent, by this source or the one above.
func (s *source) find(id trace.SpanID) (sent, bool) {
	found, ok := s.sent.Get(id)
	if !ok && s.above != nil {
		return s.above.sent.Get(id)
	}
	return found, ok
}

// lookup returns a span of this source that has been sent, or whose children have.
func (s *source) lookup(id trace.SpanID) (sent, bool) {
	if found, ok := s.sent.Get(id); ok {
		return found, true
	}
	if m := s.missing[id]; m != nil {
		return sent{Cause: m.Cause, end: math.MaxInt64}, true
	}
	return sent{}, false
}

// locate returns the trace of a span, whoever's it is; none if it is not sent. It is here
// if it is there or will be a placeholder, and not only known by a name that requests have
// for what is above them.
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

// maxDepth is how far up a tree is looked for a cycle; the agent's are some ten
// spans deep.
const maxDepth = 256

// isBelow reports whether id is among what has been sent below top, or too deep to tell.
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

// visible returns a span that is recorded, or what is above it that is.
func (s *source) visible(id trace.SpanID) trace.SpanID {
	for range maxDepth {
		found, ok := s.find(id)
		if !ok || !found.off {
			break
		}
		if parent, ok := s.find(found.parent); ok && parent.Trace != found.Trace {
			return found.Parent // since it was named, that has come in another trace
		}
		id = found.parent
	}
	return id
}
