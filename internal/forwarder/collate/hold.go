package collate

import (
	"container/list"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// node is a span that waits, or one that is missing and has children that do.
type node struct {
	id     trace.SpanID
	parent trace.SpanID // as it will be sent
	span   *span.Span   // nil: missing
	rule   *rpc         // what its name says of it, nil: nothing
	host   bool         // it is the runtime's, not the agent's
	link   trace.SpanContext
	served *call // that the runtime served with it, once that is looked for
	came   int64 // when it arrived
	needed bool  // what is below it has been drawn
	cost   int   // in memory, in bytes
	// Children, in the order in which they came.
	first, last, next *node

	// Of the tree that the node is in: the way to its top, and at the top the tree.
	up   *node
	tree *tree
}

// tree is what waits for one thing: for its top to arrive, or if that is a root
// that is no RPC, for the RPC in which it began.
type tree struct {
	top   *node
	since int64 // when the first of it came
	age   *list.Element
}

// stray tells that the top has arrived: it is a root that waits for its RPC.
func (t *tree) stray() bool { return t.top.span != nil }

// request tells that the span serves a request: one of an agent's RPCs, or a call
// of the shim as its runtime sees it.
func (n *node) request() bool { return n.rule != nil && !n.rule.life }

// held are the trees that wait, the one that waits longest first.
type held struct {
	nodes  map[trace.SpanID]*node
	trees  *list.List // of *tree
	strays map[*tree]struct{}
	spans  int
	bytes  int
}

func newHeld() held {
	return held{nodes: make(map[trace.SpanID]*node), trees: list.New(), strays: make(map[*tree]struct{})}
}

// nodeCost is what a node costs in memory beside what its span does, in bytes.
const nodeCost = 512

// put makes a node of a span that has arrived, or finds the one that its children
// have made.
func (h *held) put(s *span.Span, rule *rpc, host bool) *node {
	n := h.nodes[s.SpanID]
	if n == nil {
		n = &node{id: s.SpanID}
		h.nodes[n.id] = n
	}
	n.span, n.parent, n.rule, n.host = s, s.ParentID, rule, host
	h.spans++
	n.cost = nodeCost + s.Cost()
	h.bytes += n.cost
	return n
}

// drop forgets a node that got its place.
func (h *held) drop(n *node) {
	delete(h.nodes, n.id)
	if n.span != nil {
		h.spans--
		h.bytes -= n.cost
	}
}

// plant makes a node the top of a tree, unless it is one.
func (h *held) plant(n *node, now int64) *tree {
	if n.tree == nil {
		n.tree = &tree{top: n, since: now}
		n.tree.age = h.trees.PushBack(n.tree)
	}
	return n.tree
}

// uproot takes a tree out of those that wait.
func (h *held) uproot(t *tree) {
	h.trees.Remove(t.age)
	delete(h.strays, t)
	t.top.tree = nil
}

// top returns the top of the tree that a node is in.
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

// join puts n, the top of its tree if it is in one, under parent. It reports false
// if parent is below n.
func (h *held) join(n, parent *node, now int64) bool {
	top := parent.top()
	if top == n {
		return false
	}
	t := h.plant(top, now)
	if a := n.tree; a != nil {
		// The bound on waiting is that of the span that waits longest.
		if a.since < t.since {
			t.since = a.since
			h.trees.MoveBefore(t.age, a.age)
		}
		h.uproot(a)
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

// children takes the children of a node away from it: each is in no tree then.
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
