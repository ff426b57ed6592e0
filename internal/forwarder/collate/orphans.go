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
	parent     trace.SpanID // as it will be sent
	link       calls.Link
	needed     bool // what is below it has been drawn
	cost       int  // in memory, in bytes
	// Children, in the order in which they came.
	first, last, next *node

	// Of the orphans that the node is among: the way to their top, and at the top they.
	up      *node
	orphans *orphans
}

func (n *node) missing() bool { return n.Span.Span == nil }

// orphans are the spans that wait for one thing: for what is above them to arrive, or if
// they have that, for what may have caused it.
type orphans struct {
	top   *node
	since int64 // when the first of them came
	age   *list.Element
}

// waiting are the orphans of one source, those first that wait longest.
type waiting struct {
	nodes  map[trace.SpanID]*node
	oldest *list.List // of *orphans
	// threads are those whose top has arrived, and waits for a request that it is part of.
	threads map[*orphans]struct{}
	spans   int
	bytes   int
}

func newWaiting() waiting {
	return waiting{nodes: make(map[trace.SpanID]*node), oldest: list.New(), threads: make(map[*orphans]struct{})}
}

// front returns the orphans that wait longest, nil if none do.
func (w *waiting) front() *orphans {
	if e := w.oldest.Front(); e != nil {
		return e.Value.(*orphans)
	}
	return nil
}

// nodeCost is what a node costs in memory beside what its span does, in bytes.
const nodeCost = 512

// put makes a node of a span that has arrived, or finds the one that its children
// have made.
func (w *waiting) put(s calls.Span) *node {
	n := w.node(s.SpanID)
	n.Span, n.parent = s, s.ParentID
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

// hold has a node wait, as the top of what is below it.
func (w *waiting) hold(n *node, now int64) *orphans {
	if n.orphans == nil {
		n.orphans = &orphans{top: n, since: now}
		n.orphans.age = w.oldest.PushBack(n.orphans)
	}
	return n.orphans
}

// release takes orphans out of those that wait.
func (w *waiting) release(o *orphans) {
	w.oldest.Remove(o.age)
	delete(w.threads, o)
	o.top.orphans = nil
}

// top returns the top of the orphans that a node is among.
func (n *node) top() *node {
	top := n
	for top.up != nil {
		top = top.up
	}
	for n != top {
		n, n.up = n.up, top
	}
	return top
}

// join puts n, a top, under parent. It reports false if parent is below n.
func (w *waiting) join(n, parent *node, now int64) bool {
	top := parent.top()
	if top == n {
		return false
	}
	o := w.hold(top, now)
	if joined := n.orphans; joined != nil {
		// The bound on waiting is that of the span that waits longest.
		if joined.since < o.since {
			o.since = joined.since
			w.oldest.MoveBefore(o.age, joined.age)
		}
		w.release(joined)
	}
	n.up, n.parent = top, parent.id
	if parent.last == nil {
		parent.first = n
	} else {
		parent.last.next = n
	}
	parent.last = n
	return true
}

// children takes the children of a node away from it: each is a top then.
func (n *node) children() (all []*node) {
	for c := n.first; c != nil; {
		all = append(all, c)
		c, c.next = c.next, nil
	}
	n.first, n.last = nil, nil
	for _, c := range all {
		c.stand()
	}
	return all
}

// stand makes a node the top of what is below it.
func (n *node) stand() {
	n.up = nil
	for below := []*node{n}; len(below) > 0; {
		at := below[len(below)-1]
		below = below[:len(below)-1]
		for c := at.first; c != nil; c = c.next {
			c.up = n
			below = append(below, c)
		}
	}
}
