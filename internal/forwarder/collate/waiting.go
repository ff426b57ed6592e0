package collate

import (
	"container/list"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
)

// node is a waiting span, or a missing one with waiting children.
type node struct {
	calls.Span // nil: it is missing
	id         trace.SpanID
	needed     bool // sent spans are below it
	due        bool // its cause is as well known as it will be
	cost       int  // in memory, in bytes

	// As it will be sent.
	cause  calls.Cause
	parent trace.SpanID
	link   calls.Link

	above *node // nil: this is a top
	// Children, in the order of their arrival.
	first, last, next *node

	// Of a waiting top: when the first span below it arrived, and its element in
	// waiting.oldest.
	since int64
	age   *list.Element
}

func (n *node) missing() bool { return n.Span.Span == nil }

// waiting are the orphans of one source: spans that wait for their parents, or, at the top, for
// what may have caused them.
type waiting struct {
	nodes  map[trace.SpanID]*node
	oldest *list.List // of tops, the longest waiting first
	// undecided are the tops that wait for what caused them.
	undecided map[*node]struct{}
	spans     int
	bytes     int
}

func newWaiting() waiting {
	return waiting{nodes: make(map[trace.SpanID]*node), oldest: list.New(), undecided: make(map[*node]struct{})}
}

// front returns the longest waiting top, nil if there is none.
func (w *waiting) front() *node {
	if e := w.oldest.Front(); e != nil {
		return e.Value.(*node)
	}
	return nil
}

// nodeCost is what a node costs in memory, in bytes, in addition to its span.
const nodeCost = 512

// put makes a node for a span that has arrived, or fills in the one that its children made.
func (w *waiting) put(s calls.Span) *node {
	n := w.node(s.SpanID)
	n.Span = s
	n.cost = nodeCost + s.Cost()
	w.spans++
	w.bytes += n.cost
	return n
}

// node returns the node of a span; if there is none, it adds one for a missing span.
func (w *waiting) node(id trace.SpanID) *node {
	n := w.nodes[id]
	if n == nil {
		n = &node{id: id}
		w.nodes[id] = n
	}
	return n
}

// arrived reports whether a span has arrived and waits.
func (w *waiting) arrived(id trace.SpanID) bool {
	n := w.nodes[id]
	return n != nil && !n.missing()
}

// drop removes a node.
func (w *waiting) drop(n *node) {
	delete(w.nodes, n.id)
	if !n.missing() {
		w.spans--
		w.bytes -= n.cost
	}
}

// hold makes a top wait, with what is below it.
func (w *waiting) hold(top *node, now int64) {
	if top.age == nil {
		top.since, top.age = now, w.oldest.PushBack(top)
	}
}

// release ends a top's wait.
func (w *waiting) release(top *node) {
	if top.age != nil {
		w.oldest.Remove(top.age)
		top.age = nil
		delete(w.undecided, top)
	}
}

// top returns the top above a node.
func (n *node) top() *node {
	for n.above != nil {
		n = n.above
	}
	return n
}

// join puts n, a top, below another node. It reports false if that node is below n.
func (w *waiting) join(n, above *node, now int64) bool {
	top := above.top()
	if top == n {
		return false
	}
	w.hold(top, now)
	// The longest waiting span bounds the wait of all.
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

// orphans removes a missing top and returns its children, which are tops then.
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
