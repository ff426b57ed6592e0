package collate

import (
	"container/list"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
)

// node is a span that waits, or one that is missing and has children that do.
type node struct {
	calls.Span // of nothing: it is missing
	id         trace.SpanID
	needed     bool // what is below it has been drawn
	cost       int  // in memory, in bytes

	// As it will be sent.
	cause  calls.Cause
	parent trace.SpanID
	link   calls.Link

	above *node // nil: it is a top
	// Children, in the order in which they came.
	first, last, next *node

	// Of a top that waits: when the first span below it came, and where it is in
	// waiting.oldest.
	since int64
	age   *list.Element
}

func (n *node) missing() bool { return n.Span.Span == nil }

// waiting are the orphans of one source: spans that wait for what is above them to arrive,
// or if they are tops that have arrived, for what may have caused them.
type waiting struct {
	nodes  map[trace.SpanID]*node
	oldest *list.List // of tops, those first that wait longest
	// threads are the tops that wait for a request that they are part of.
	threads map[*node]struct{}
	spans   int
	bytes   int
}

func newWaiting() waiting {
	return waiting{nodes: make(map[trace.SpanID]*node), oldest: list.New(), threads: make(map[*node]struct{})}
}

// front returns the top that waits longest, nil if none does.
func (w *waiting) front() *node {
	if e := w.oldest.Front(); e != nil {
		return e.Value.(*node)
	}
	return nil
}

// nodeCost is what a node costs in memory beside what its span does, in bytes.
const nodeCost = 512

// put makes a node of a span that has arrived, or finds the one that its children
// have made.
func (w *waiting) put(s calls.Span) *node {
	n := w.node(s.SpanID)
	n.Span = s
	n.cost = nodeCost + s.Cost()
	w.spans++
	w.bytes += n.cost
	return n
}

// node returns the node of a span, made now for a missing one.
func (w *waiting) node(id trace.SpanID) *node {
	n := w.nodes[id]
	if n == nil {
		n = &node{id: id}
		w.nodes[id] = n
	}
	return n
}

// arrived reports whether a span is among those that wait.
func (w *waiting) arrived(id trace.SpanID) bool {
	n := w.nodes[id]
	return n != nil && !n.missing()
}

// drop forgets a node that got its place.
func (w *waiting) drop(n *node) {
	delete(w.nodes, n.id)
	if !n.missing() {
		w.spans--
		w.bytes -= n.cost
	}
}

// hold has a top wait, with what is below it.
func (w *waiting) hold(top *node, now int64) {
	if top.age == nil {
		top.since, top.age = now, w.oldest.PushBack(top)
	}
}

// release takes a top out of those that wait.
func (w *waiting) release(top *node) {
	if top.age != nil {
		w.oldest.Remove(top.age)
		top.age = nil
		delete(w.threads, top)
	}
}

// top returns the top that a node is below.
func (n *node) top() *node {
	for n.above != nil {
		n = n.above
	}
	return n
}

// join puts n, a top, below another node. It reports false if that is below n.
func (w *waiting) join(n, above *node, now int64) bool {
	top := above.top()
	if top == n {
		return false
	}
	w.hold(top, now)
	// The bound on waiting is that of the span that waits longest.
	if n.age != nil && n.since < top.since {
		top.since = n.since
		w.oldest.MoveBefore(top.age, n.age)
	}
	w.release(n)
	n.above = above
	if above.last == nil {
		above.first = n
	} else {
		above.last.next = n
	}
	above.last = n
	return true
}

// orphans takes the children of a missing top away from it, which waits no longer: each is
// a top then.
func (w *waiting) orphans(top *node) (all []*node) {
	w.release(top)
	w.drop(top)
	for c := top.first; c != nil; {
		all = append(all, c)
		c.above = nil
		c, c.next = c.next, nil
	}
	top.first, top.last = nil, nil
	return all
}
