package waterfall

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Tree is a story's spans in their order: who called whom, and then by time.
type Tree struct {
	Roots []*Node
	// Spans and Errors count what is in the tree; Repeated what was left out
	// because it was there already, and Omitted what exceeded the limit.
	Spans, Errors     int
	Repeated, Omitted int
}

// Place says how a node came to where it is.
type Place uint8

const (
	// Called is below the span that is its parent, or a root without a parent.
	Called Place = iota
	// Linked is below a span of another trace that it has a link to: its parent
	// is a caller whose spans are not ours.
	Linked
	// Loose is a root because the parents lead in a circle.
	Loose
	// Absent is no span but stands for one that is named as a parent and not
	// here: still running, in somebody else's trace, or lost.
	Absent
	// Unstarted is Absent, and known to be the sandbox's "sandbox start".
	Unstarted
)

// Node is one span with what happened because of it.
type Node struct {
	Span     *tracepb.Span // nil when the span is Absent
	Resource *resourcepb.Resource
	Place    Place
	Children []*Node
	// ID is the span's, also when it is absent; zero when it has no valid one.
	ID trace.SpanID

	start, end uint64 // nanoseconds since 1970; 0 is unknown
	key        spanKey
	parent     *Node
	walk       int // of the search for circles that came here first
}

// Build makes the tree of one story's spans (see Story.Select). It takes at most
// limit spans (all when limit is 0 or less), the ones that come first; where a
// span is repeated, the first one counts.
func Build(spans []*tracepb.ResourceSpans, limit int) *Tree {
	b := builder{byKey: make(map[spanKey]*Node), absent: make(map[spanKey]*Node), tree: &Tree{}}
	for _, rs := range spans {
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				if limit > 0 && b.tree.Spans >= limit {
					b.tree.Omitted++
					continue
				}
				b.add(rs.GetResource(), s)
			}
		}
	}
	for _, n := range b.nodes {
		b.place(n)
	}
	for i, n := range b.nodes {
		cut(n, i+1)
	}
	b.hang()
	return b.tree
}

type builder struct {
	tree   *Tree
	nodes  []*Node
	byKey  map[spanKey]*Node
	absent map[spanKey]*Node
}

func (b *builder) add(res *resourcepb.Resource, s *tracepb.Span) {
	n := &Node{Span: s, Resource: res}
	n.start, n.end = spanTimes(s)
	if key, ok := keyOf(s.GetTraceId(), s.GetSpanId()); ok {
		if b.byKey[key] != nil {
			b.tree.Repeated++
			return
		}
		n.key, n.ID = key, key.span
		b.byKey[key] = n
	}
	b.tree.Spans++
	if failed(s) {
		b.tree.Errors++
	}
	b.nodes = append(b.nodes, n)
}

// place finds the node's parent: its own; else the span it is linked to, which
// is how calls in callers' traces come below their sandbox; else a stand-in.
func (b *builder) place(n *Node) {
	up, hasParent := keyOf(n.Span.GetTraceId(), n.Span.GetParentSpanId())
	if p := b.byKey[up]; hasParent && p != nil {
		n.parent = p
		return
	}
	var link spanKey
	var linked bool
	for _, l := range n.Span.GetLinks() {
		to, ok := keyOf(l.GetTraceId(), l.GetSpanId())
		if !ok || to.trace == n.key.trace {
			continue
		}
		if p := b.byKey[to]; p != nil {
			n.parent, n.Place = p, Linked
			return
		}
		if !linked {
			link, linked = to, true
		}
	}
	switch {
	case linked:
		n.parent, n.Place = b.standIn(link, Unstarted), Linked
	case hasParent && n.Span.GetName() == startName:
		n.parent = b.standIn(up, Unstarted)
	case hasParent:
		n.parent = b.standIn(up, Absent)
	}
}

// standIn returns the node for a span that is not here.
func (b *builder) standIn(key spanKey, place Place) *Node {
	n := b.absent[key]
	if n == nil {
		n = &Node{key: key, ID: key.span}
		b.absent[key] = n
	}
	n.Place = max(n.Place, place)
	return n
}

// cut makes a root of the earliest span of a circle of parents, if the way up
// from n leads into one. Each call has its own walk number, so that a way that
// was gone before is known and not gone again.
func cut(n *Node, walk int) {
	at := n
	for at != nil && at.walk == 0 {
		at.walk = walk
		at = at.parent
	}
	if at == nil || at.walk != walk {
		return
	}
	first := at
	for m := at.parent; m != at; m = m.parent {
		if compare(m, first) < 0 {
			first = m
		}
	}
	first.parent, first.Place = nil, Loose
}

// hang gives every node to its parent and sorts.
func (b *builder) hang() {
	for _, n := range b.nodes {
		if n.parent == nil {
			b.tree.Roots = append(b.tree.Roots, n)
			continue
		}
		n.parent.Children = append(n.parent.Children, n)
	}
	for _, n := range b.absent {
		for _, c := range n.Children {
			if c.start != 0 && (n.start == 0 || c.start < n.start) {
				n.start, n.end = c.start, c.start
			}
		}
		b.tree.Roots = append(b.tree.Roots, n)
		slices.SortFunc(n.Children, compare)
	}
	slices.SortFunc(b.tree.Roots, compare)
	for _, n := range b.nodes {
		slices.SortFunc(n.Children, compare)
	}
}

// compare orders by start (unknown ones last), the longer before the shorter,
// and in any case in one order.
func compare(a, b *Node) int {
	return cmp.Or(
		cmp.Compare(a.start-1, b.start-1), // 0 becomes the largest
		cmp.Compare(b.end, a.end),
		strings.Compare(a.Span.GetName(), b.Span.GetName()),
		bytes.Compare(a.key.trace[:], b.key.trace[:]),
		bytes.Compare(a.key.span[:], b.key.span[:]),
	)
}
