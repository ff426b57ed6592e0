package collate

import (
	"cmp"
	"math"
	"slices"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
)

// missing is a parent that has not arrived, though its children were sent.
type missing struct {
	calls.Cause
	begin, end uint64 // from the first child's start to the last child's end
	children   int
}

// drew records that a child was sent.
func (m *missing) drew(begin, end uint64) {
	if m.children == 0 {
		m.begin, m.end = begin, end
	}
	m.children++
	m.begin, m.end = min(m.begin, begin), max(m.end, end)
}

// expected returns the cause of a span whose children were sent before it arrived.
func (s *source) expected(id trace.SpanID) (calls.Cause, bool) {
	if m := s.missing[id]; m != nil {
		return m.Cause, true
	}
	return s.Named(id)
}

// add places a span that has arrived, or lets it wait. If its children were sent, it cannot
// wait.
func (s *source) add(n *node) {
	cause, expected := s.expected(n.id)
	if !expected {
		s.settle(n, nil)
		return
	}
	n.due = true
	inferred := &inference{Cause: cause}
	p := below(cause)
	if s.isAbove(n, inferred) {
		s.stats.Cut++
	} else {
		p = s.decide(n, inferred).among(cause)
	}
	m := s.missing[n.id]
	n.needed = m == nil || m.children > 0
	delete(s.missing, n.id)
	s.send(n, p)
}

// isAbove settles what waits above a span. It reports whether the span is above itself:
// the parent that it names is below it.
func (s *source) isAbove(n *node, inferred *inference) bool {
	parent := trace.SpanID(n.ParentID)
	if !parent.IsValid() || !s.opts.Isolated && s.alone(n) {
		return false
	}
	for above := s.waiting.nodes[parent]; above != nil; above = s.waiting.nodes[parent] {
		top := above.top()
		if top == n {
			return true
		}
		s.force(top, inferred)
	}
	if s.above != nil {
		s.above.forceNamed(parent)
	}
	return s.isBelow(parent, n.id)
}

// among returns the placement of a span in its children's trace. If it belongs elsewhere by its
// own account, it is only linked to that.
func (p placement) among(children calls.Cause) placement {
	switch {
	case p.Drop != "":
		return below(children)
	case p.Trace != children.Trace:
		children.Link = calls.Link{Trace: p.Trace, Span: p.parent}
		return below(children)
	}
	children.Shift, children.Link = p.Shift, p.Link
	p.Cause = children
	return p
}

// maxClues bounds the spans that are searched for ids.
const maxClues = 64

// infer returns the cause of a missing span. It goes by the names and ids of the spans below
// that one, else by the earlier cause of its trace, else by time.
func (s *source) infer(i *inference) calls.Cause {
	lost := i.clues
	if lost == nil {
		return i.Cause
	}
	i.clues = nil
	if t, _ := s.traces.Get(lost.TraceID); t.placed && t.Drop == "" && (!lost.IsRequest() || lost.ContainerID == "") {
		i.Cause = t.Cause
		return i.Cause
	}
	cause := s.Of(lost)
	if cause.Trace.IsValid() && cause.Trace != lost.TraceID && s.HasTrace(lost.TraceID) {
		// The trace stays; only the parent must be in it too.
		cause, _ = s.InTrace(lost)
	}
	i.Cause = s.orOwnTrace(cause, lost.TraceID)
	return i.Cause
}

// clues returns what the spans below a missing span tell about it.
func (s *source) clues(top *node) calls.Span {
	lost := span.Span{Start: math.MaxUint64}
	var room [8]*node
	below := room[:0]
	for n := top.first; n != nil; n = n.next {
		if s.above != nil && n.IsRequest() {
			continue // its parent is its caller's
		}
		if len(below) == 0 {
			lost.TraceID = n.TraceID
		}
		if lost.Name == "" && s.above != nil {
			lost.Name = calls.ParentOf(n.Name)
		}
		lost.Start, lost.End = min(lost.Start, n.Start), max(lost.End, n.End)
		if len(below) < maxClues {
			below = append(below, n)
		}
	}
	for i := 0; i < len(below) && lost.ContainerID == ""; i++ {
		lost.ContainerID, lost.ExecID = below[i].ContainerID, below[i].ExecID
		for n := below[i].first; n != nil && len(below) < maxClues; n = n.next {
			below = append(below, n)
		}
	}
	of := calls.RuntimeSpan(&lost)
	if s.above != nil {
		of = calls.AgentSpan(&lost)
	}
	of.Came = s.now()
	return of
}

// await registers a placement's missing parent. Where that is impossible, the span goes directly
// below its cause.
func (s *source) await(p *placement) {
	in := p.missing
	if s.above != nil && s.above.missing[p.parent] != nil {
		in = s.above
	} else if s.missing[p.parent] != nil {
		in = s
	}
	m := in.missing[p.parent]
	named, isNamed := s.Named(p.parent)
	switch {
	case p.Drop != "", p.parent == p.Parent: // dropped, or its call forgotten
		p.parent = p.Parent
	case m == nil && s.awaited() >= s.opts.MaxAwaited,
		// Others have drawn the parent into another trace.
		m != nil && m.Trace != p.Trace, isNamed && named.Trace != p.Trace:
		s.stats.Cut++
		p.parent = p.Parent
	case m == nil:
		in.missing[p.parent] = &missing{Cause: p.Cause}
		in.missing[p.parent].Shift = nil
	}
}

// arrivedAbove places what waits for a span of the source above. If children were drawn below
// that span in another trace before this was known, it gets a placeholder there.
func (s *source) arrivedAbove(id trace.SpanID, in trace.TraceID) {
	if m := s.missing[id]; m != nil {
		delete(s.missing, id)
		if m.children > 0 && m.Trace != in {
			s.placeholder(id, m)
		}
	}
	s.wake(id, nil)
}

// expect registers the runtime's spans that are above requests and have not arrived.
func (s *source) expect() {
	for _, p := range s.Requested() {
		if s.has(p.ID) {
			continue
		}
		m := s.missing[p.ID]
		if m == nil {
			m = &missing{Cause: p.Cause}
			s.missing[p.ID] = m
		}
		m.drew(uint64(p.Requests.Start), uint64(p.Requests.End))
	}
}

// awaited returns how many parents are missing.
func (c *Collator) awaited() int { return len(c.runtime.missing) + len(c.agent.missing) }

// placeholders sends a placeholder for each parent that never arrived.
func (s *source) placeholders() {
	ids := make([]trace.SpanID, 0, len(s.missing))
	for id, m := range s.missing {
		// Spans of the host need none, nor do those that the guest sent under this id.
		if _, known := s.Knows(id); m.children > 0 && !known && (s.below == nil || !s.below.isDrawn(id, m.Trace)) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(x, y trace.SpanID) int {
		return cmp.Or(cmp.Compare(s.missing[x].begin, s.missing[y].begin), slices.Compare(x[:], y[:]))
	})
	for _, id := range ids {
		s.placeholder(id, s.missing[id])
	}
	clear(s.missing)
}

// isDrawn reports whether a span was sent, in this trace.
func (s *source) isDrawn(id trace.SpanID, in trace.TraceID) bool {
	found, ok := s.sent.Get(id)
	return ok && found.Trace == in && found.Drop == "" && !found.off
}

// placeholder sends a placeholder for a missing parent.
func (s *source) placeholder(id trace.SpanID, m *missing) {
	s.stats.Placeholders++
	s.sent.Put(id, sent{Cause: m.Cause, parent: m.Parent, end: int64(m.end)})
	p := &span.Span{
		TraceID: m.Trace, SpanID: id, ParentID: m.Parent, Name: s.out.lost, Kind: tracepb.Span_SPAN_KIND_INTERNAL,
		Start: m.begin, End: m.end,
	}
	p.AddBool(names.Placeholder, true)
	s.put(p, nodeCost)
	if s.below != nil {
		s.below.arrivedAbove(id, m.Trace)
	}
}
