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

// infer places a top that has waited long enough, with all below it: by cause, or by an
// inferred one. The children of a missing span keep it as their parent, because it may still
// arrive. Only requests to the agent do not: their parent is not the agent's.
func (s *source) infer(top *node, cause *calls.Cause) {
	s.stats.Inferred++
	if !top.missing() {
		s.place(top)
		return
	}
	if s.above != nil && s.above.placeNow(top.id) && top.age == nil {
		return // they followed
	}
	if named, ok := s.Named(top.id); ok {
		cause = &named
	}
	lost := s.lost(top)
	for _, n := range s.waiting.orphans(top) {
		runtimes := s.above != nil && s.IsRuntime(n.TraceID)
		switch request := s.requestFromAbove(n); {
		case runtimes && s.opts.Isolated:
			s.detach(n)
		case request && runtimes:
			s.await(n, top.id, s.cause(n), s.above)
		case request:
			s.rememberForeign(n.TraceID)
			s.root(n)
		default:
			if cause == nil {
				inferred := s.inferred(&lost)
				cause = &inferred
			}
			s.rememberTrace(n.TraceID, *cause)
			s.await(n, top.id, *cause, s)
		}
	}
}

// placeNow places a waiting span of this source for which others have waited long enough. It
// reports false if no such span waits.
func (s *source) placeNow(id trace.SpanID) bool {
	if s.opts.Isolated || !s.waiting.arrived(id) {
		return false
	}
	s.infer(s.waiting.nodes[id].top(), nil)
	return true
}

// maxClues bounds the spans that are searched for ids.
const maxClues = 64

// inferred returns the cause of a missing span: by the names and ids of the spans below it,
// else the earlier one of its trace, else by time.
func (s *source) inferred(lost *calls.Span) calls.Cause {
	if t, _ := s.traces.Get(lost.TraceID); t.placed && t.Drop == "" && (!lost.IsRequest() || lost.ContainerID == "") {
		return t.Cause
	}
	cause := s.Of(lost)
	if cause.Trace.IsValid() && cause.Trace != lost.TraceID && s.HasTrace(lost.TraceID) {
		// The trace stays; only the parent must be in it too.
		cause, _ = s.Within(lost)
	}
	return s.orOwnTrace(cause, lost.TraceID)
}

// lost returns what the spans below a missing span tell about it.
func (s *source) lost(top *node) calls.Span {
	lost := span.Span{Start: math.MaxUint64}
	var room [8]*node
	below := room[:0]
	for n := top.first; n != nil; n = n.next {
		if s.requestFromAbove(n) {
			continue
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
	of := s.spanOf(&lost)
	of.Came = s.now()
	return of
}

// await sends a span whose parent is missing, and may still come from source in.
func (s *source) await(n *node, parent trace.SpanID, cause calls.Cause, in *source) {
	if s.above != nil && s.above.missing[parent] != nil {
		in = s.above
	} else if s.missing[parent] != nil {
		in = s
	}
	m := in.missing[parent]
	named, isNamed := s.Named(parent)
	switch {
	case cause.Drop != "", parent == cause.Parent: // dropped, or its call forgotten
		s.send(n, cause, cause.Parent)
		return
	case m == nil && s.awaited() >= s.opts.MaxAwaited,
		// Others have drawn the parent into another trace.
		m != nil && m.Trace != cause.Trace, isNamed && named.Trace != cause.Trace:
		s.stats.Cut++
		s.send(n, cause, cause.Parent)
		return
	case m == nil:
		in.missing[parent] = &missing{Cause: cause}
		in.missing[parent].Shift = nil
	}
	s.send(n, cause, parent)
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
	if top := s.waiting.nodes[id]; top != nil && top.missing() {
		for _, child := range s.waiting.orphans(top) {
			s.settle(child)
		}
	}
}

// expect registers the runtime's spans that are above requests and have not arrived.
func (r *runtime) expect() {
	for _, p := range r.Requested() {
		if r.has(p.ID) {
			continue
		}
		m := r.missing[p.ID]
		if m == nil {
			m = &missing{Cause: p.Cause}
			r.missing[p.ID] = m
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
