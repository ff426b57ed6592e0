package collate

import (
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
)

// batch collects the spans of one source for the sink, as OTLP.
type batch struct {
	opts     *Options
	resource *resourcepb.Resource
	scope    string
	lost     string // the name of its placeholders
	spans    int
	cost     int    // of the spans in their reader's memory, in bytes
	buf      []byte // elements of ScopeSpans.spans
}

const (
	// maxBatchCost bounds a batch's memory, in bytes, give or take one span.
	maxBatchCost = 512 << 10
	// maxBatchBytes bounds a batch in bytes of OTLP, give or take one span. Its memory serves
	// the next one: it is needed every half second while spans come, and would be garbage as
	// often.
	maxBatchBytes = 32 << 10
)

func newBatch(opts *Options, resource *resourcepb.Resource, scope, lost string) batch {
	return batch{opts: opts, resource: resource, scope: scope, lost: lost}
}

func (b *batch) add(s *span.Span, cost int) {
	b.buf = s.AppendElement(b.buf)
	b.spans++
	b.cost += cost
	if b.spans >= b.opts.MaxBatch || b.cost >= maxBatchCost || len(b.buf) >= maxBatchBytes {
		b.send()
	}
}

func (b *batch) send() {
	if b.spans == 0 {
		return
	}
	b.opts.Sink(b.resource, b.scope, b.buf, b.spans)
	b.spans, b.cost, b.buf = 0, 0, b.buf[:0]
}

// flush hands the collected spans to the sink, and frees the memory if that was much.
func (b *batch) flush() {
	b.send()
	if cap(b.buf) > 2*maxBatchBytes {
		b.buf = nil
	}
}

// flush hands the collected spans of both sources to the sink.
func (c *Collator) flush() {
	c.agent.out.flush()
	c.runtime.out.flush()
}

// send sends a span where it was placed, and all that is below the span.
func (s *source) send(top *node, p placement) {
	if p.missing != nil {
		s.await(&p)
	}
	s.rememberTrace(top.TraceID, p.Cause)
	s.waiting.release(top)
	if p.Link != (calls.Link{}) {
		top.link, p.Link = p.Link, calls.Link{}
	}
	if p.Shift == nil {
		p.Cause, _ = s.Inherit(&top.Span, p.Cause, math.MaxInt64)
	}
	top.cause, top.parent = p.Cause, s.visible(p.parent)
	s.stack = append(s.stack[:0], top)
	var apart []*node
	for len(s.stack) > 0 {
		n := s.stack[len(s.stack)-1]
		s.stack = s.stack[:len(s.stack)-1]
		s.waiting.drop(n)
		sent := s.sendOne(n)
		from, parent := len(s.stack), s.visible(n.id)
		for child := n.first; child != nil; child = child.next {
			var within bool
			if child.cause, within = s.Inherit(&child.Span, sent.Cause, sent.end); !within {
				apart = append(apart, child)
				continue
			}
			child.parent = parent
			s.stack = append(s.stack, child)
		}
		slices.Reverse(s.stack[from:])
		if s.above != nil {
			s.opts.Done(n.Span.Span)
		}
		s.waiting.reuse(n)
	}
	for _, n := range apart {
		n.above, n.next = nil, nil
		s.send(n, s.detached(n))
	}
}

// sendOne sends a single span.
func (s *source) sendOne(n *node) sent {
	was, at, recorded := s.Draw(&n.Span, &n.cause)
	done := sent{Cause: n.cause, parent: n.parent, end: was.End}
	done.off = !recorded && !n.needed && (n.cause.Drop == "" || n.cause.Drop == unsampled)
	if n.IsLifeLong() {
		done.Shift = nil // its times say little about what is below it
	}
	s.sent.Put(n.id, done)
	in := n.cause.Trace
	switch {
	case done.off:
		s.drop(Off)
		in = trace.TraceID{}
	case n.cause.Drop != "":
		s.drop(n.cause.Drop)
		in = trace.TraceID{}
	default:
		s.emit(n, was, at)
	}
	if s.below != nil {
		s.below.arrivedAbove(n.id, in)
	}
	return done
}

// emit sends a span, which was at one time on the host's clock and is drawn at another.
func (s *source) emit(n *node, was, at calls.Period) {
	span := n.Span.Span
	if span.TraceID != n.cause.Trace {
		s.stats.Rewritten++
		span.TraceID, span.TraceState = n.cause.Trace, ""
	}
	span.ParentID = n.parent
	start, end := span.Start, span.End
	span.Start, span.End = uint64(at.Start), uint64(at.End)
	if span.Start != start || span.End != end {
		s.stats.Corrected++
		span.AddInt(names.OriginalStart, int64(min(start, math.MaxInt64)))
		span.AddInt(names.OriginalEnd, int64(min(end, math.MaxInt64)))
		span.MoveEvents(func(t uint64) uint64 { return n.cause.Shift.Event(t, at) })
	}
	if at != was {
		span.AddBool(names.Clipped, true)
	}
	s.keepLinks(span)
	if n.link.Trace.IsValid() && n.link.Span.IsValid() {
		span.AddLink(n.link.Trace, n.link.Span)
	}
	for in := s; in != nil; in = in.above {
		if missing := in.missing[n.parent]; missing != nil {
			missing.drew(span.Start, span.End)
		}
	}
	s.stats.Sent++
	if s.opts.Drawn != nil {
		s.opts.Drawn(span.Name, s == &s.agent, time.Unix(0, at.Start), time.Unix(0, at.End))
	}
	s.put(span, n.cost)
}

// put adds a span to the batch. A span without a parent is linked to the sandbox.
func (s *source) put(m *span.Span, cost int) {
	if m.ParentID == ([8]byte{}) {
		if root := s.Root(int64(m.End)); root.IsValid() {
			m.AddLink(root.TraceID(), root.SpanID())
		}
	}
	s.out.add(m, cost)
}

// keepLinks keeps only the links that stay within the sandbox: a link must lead neither into it
// from elsewhere nor out of it.
func (s *source) keepLinks(m *span.Span) {
	m.KeepLinks(func(id *[16]byte) bool {
		if s.HasTrace(*id) {
			return true
		}
		t, _ := s.traces.Get(*id)
		if !t.placed || t.Drop != "" {
			return false
		}
		*id = t.Trace
		return true
	})
}
