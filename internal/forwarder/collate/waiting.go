package collate

import (
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

	// Of a waiting top: when the first span below it arrived, and its neighbours in the queue.
	held           bool
	since          int64
	older, younger *node
}

func (n *node) missing() bool { return n.Span.Span == nil }

// waiting are the orphans of one source: spans that wait for their parents, or, at the top, for
// what may have caused them.
type waiting struct {
	nodes map[trace.SpanID]*node
	// The queue of tops, the longest waiting first; nil: it is empty.
	oldest, youngest *node
	// undecided are the tops that wait for what caused them.
	undecided map[*node]struct{}
	spans     int
	bytes     int
	unused    []*node // for reuse
}

// maxUnused bounds waiting.unused; an agent's request makes some thirty spans.
const maxUnused = 64

func newWaiting() waiting {
	return waiting{nodes: make(map[trace.SpanID]*node), undecided: make(map[*node]struct{})}
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
	if n != nil {
		return n
	}
	if last := len(w.unused) - 1; last >= 0 {
		n, w.unused = w.unused[last], w.unused[:last]
	} else {
		n = new(node)
	}
	n.id = id
	w.nodes[id] = n
	return n
}

// reuse gives back a node that nothing refers to.
func (w *waiting) reuse(n *node) {
	if *n = (node{}); len(w.unused) < maxUnused {
		w.unused = append(w.unused, n)
	}
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
func (w *waiting) hold(top *node, since int64) {
	if !top.held {
		w.enqueue(top, since, nil)
	}
}

// enqueue adds a top to the queue before another, or at the end.
func (w *waiting) enqueue(top *node, since int64, before *node) {
	top.held, top.since = true, since
	top.younger, top.older = before, w.youngest
	if before == nil {
		w.youngest = top
	} else {
		top.older, before.older = before.older, top
	}
	if top.older == nil {
		w.oldest = top
	} else {
		top.older.younger = top
	}
}

// release ends a top's wait.
func (w *waiting) release(top *node) {
	if top.held {
		delete(w.undecided, top)
		w.dequeue(top)
	}
}

func (w *waiting) dequeue(top *node) {
	if top.older == nil {
		w.oldest = top.younger
	} else {
		top.older.younger = top.younger
	}
	if top.younger == nil {
		w.youngest = top.older
	} else {
		top.younger.older = top.older
	}
	top.held, top.older, top.younger = false, nil, nil
}

// top returns the top above a node.
func (n *node) top() *node {
	for n.above != nil {
		n = n.above
	}
	return n
}

// join puts n, a top, below another node. It reports false if that node is below n.
func (w *waiting) join(n, above *node) bool {
	top := above.top()
	if top == n {
		return false
	}
	w.hold(top, n.Came)
	if n.held && n.since < top.since { // the longest waiting span bounds the wait of all
		w.dequeue(top)
		w.enqueue(top, n.since, n)
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

// orphans removes a missing top and returns the first of its children, which are then tops.
func (w *waiting) orphans(top *node) (first *node) {
	w.release(top)
	w.drop(top)
	first = top.first
	for n := first; n != nil; n = n.next {
		n.above = nil
	}
	w.reuse(top)
	return first
}
