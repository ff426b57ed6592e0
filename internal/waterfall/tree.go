package waterfall

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
)

// Tree is a story's spans in order: by who called whom, then by time.
type Tree struct {
	Roots []*Node
	// Spans and Errors count the tree; Repeated the duplicates left out, and Omitted
	// the spans beyond the limits.
	Spans, Errors     int
	Repeated, Omitted int
}

// Place says why a node is where it is.
type Place uint8

const (
	// The zero value is below its parent, or a root without a parent.
	_ Place = iota
	// Linked is below a span of another trace that it is linked to: its parent is a
	// caller's span, which is not in the journal.
	Linked
	// loose is a root because its parents form a circle.
	loose
	// absent stands for a parent that is not in the journal: still running, in another
	// system's trace, or lost.
	absent
	// unstarted is absent, and known to be the sandbox's "sandbox start".
	unstarted
)

// Node is one span with what happened because of it.
type Node struct {
	Span     *Span // nil if absent or unstarted
	Place    Place
	Children []*Node
	// ID is the span's, also if it is absent; zero if it has no valid one.
	ID trace.SpanID

	by         Maker
	service    string
	start, end uint64 // nanoseconds since 1970; 0 is unknown
	key        spanKey
	parent     *Node
	walk       int  // number of the search for circles that first came here
	drawn      bool // has a line of its own
	below      int  // number of spans below
}

// Limits bound a tree: its spans, and roughly its bytes in memory. Guests' spans, and
// those of other programs, get at most three quarters of the bytes, so that any number
// of them leaves room for ours. Zero is no limit.
//
// Aside bounds the bytes of the spans that are not the story's but may turn out to be
// when more has arrived (Update); zero keeps none.
type Limits struct {
	Spans int
	Bytes int
	Aside int
}

// Builder builds the tree of one story from a journal's messages.
type Builder struct {
	story   *Story
	limits  Limits
	details bool

	reader  reader
	posted  reader               // of what other programs have posted
	foreign map[spanKey]struct{} // what other sandboxes' spans are below
	texts   interner
	bytes   int
	nodes   []*Node
	byKey   map[spanKey]*Node
	absent  map[spanKey]*Node
	aside   aside

	repeated, omitted int
}

// NewBuilder returns a builder of the story's tree. With details, spans keep what a
// verbose picture needs.
func NewBuilder(s *Story, l Limits, details bool) *Builder {
	return &Builder{
		story: s, limits: l, details: details,
		byKey: make(map[spanKey]*Node), aside: aside{most: l.Aside},
		posted: reader{others: true}, foreign: make(map[spanKey]struct{}),
	}
}

// Add adds the spans of a TracesData message that belong to the story. It keeps no part
// of data. Of repeated spans the first one counts. It returns an error if data is
// malformed; what was read until then counts.
func (b *Builder) Add(data []byte) error {
	return b.reader.each(data, b.take)
}

// take takes a span if it belongs to the story.
func (b *Builder) take(res *resource, by Maker, raw []byte) {
	key := readKey(raw)
	if b.story == nil || key != (spanKey{}) && b.story.takes(res, key) {
		b.add(res, by, raw, key)
		return
	}
	if !res.others {
		b.foreigner(raw, key)
	}
	b.aside.put(res, by, raw, key.trace)
}

// takes reports whether a span belongs to the story, whoever made it.
func (s *Story) takes(res *resource, key spanKey) bool {
	if res.others {
		return s.hasPosted(key.trace)
	}
	return s.has(res, key)
}

// nodeBytes is about what a node takes besides its texts and lists.
const nodeBytes = 512

func (b *Builder) add(res *resource, by Maker, raw []byte, key spanKey) {
	if key != (spanKey{}) && b.byKey[key] != nil {
		b.repeated++
		return
	}
	size := nodeBytes
	if b.details {
		size += len(raw)
	}
	if b.full(by, size) {
		b.omitted++
		return
	}
	s := new(Span)
	texts := b.texts.made
	if !s.read(raw, by, b.texts.intern) {
		return
	}
	if b.details {
		s.details = bytes.Clone(raw)
	}
	b.bytes += size + s.size() + b.texts.made - texts
	n := &Node{Span: s, by: by, service: res.service, start: s.start, end: s.end, key: s.key, ID: s.key.span}
	if s.key != (spanKey{}) {
		b.byKey[s.key] = n
	}
	b.nodes = append(b.nodes, n)
}

// full reports whether a span of size bytes exceeds the limits.
func (b *Builder) full(by Maker, size int) bool {
	if b.limits.Spans > 0 && len(b.nodes) >= b.limits.Spans {
		return true
	}
	most := b.limits.Bytes
	if by == ByAgent || by == ByOthers {
		most -= most / 4
	}
	return b.limits.Bytes > 0 && b.bytes+size > most
}

// Tree returns the tree of what has been added. The next call makes its tree of the same
// nodes, so the earlier tree is then no longer valid.
func (b *Builder) Tree() *Tree {
	b.absent = make(map[spanKey]*Node)
	for _, n := range b.nodes {
		n.parent, n.Place, n.walk, n.Children = nil, 0, 0, nil
	}
	for _, n := range b.nodes {
		b.place(n)
	}
	b.raise()
	for i, n := range b.nodes {
		cut(n, i+1)
	}
	t := &Tree{Repeated: b.repeated, Omitted: b.omitted}
	b.hang(t, b.prune())
	return t
}

// place finds the node's parent: its own; else the span it is linked to, which puts
// calls in callers' traces below their sandbox; else a stand-in.
func (b *Builder) place(n *Node) {
	up := spanKey{n.key.trace, n.Span.parent}
	hasParent := n.Span.parent.IsValid()
	if p := b.byKey[up]; hasParent && p != nil {
		n.parent = p
		return
	}
	var link spanKey
	var linked bool
	for _, to := range n.Span.links {
		if to.trace == n.key.trace {
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
	case linked && n.by != ByOthers && !n.isRoot():
		n.parent, n.Place = b.standIn(link, unstarted), Linked
	case hasParent && n.by == ByShim && n.Span.Name == names.ShimStart:
		n.parent = b.standIn(up, unstarted)
	case hasParent:
		n.parent = b.standIn(up, absent)
	}
}

// isRoot reports whether the node is the root of a sandbox's trace.
func (n *Node) isRoot() bool {
	return n.by == ByShim && n.Span != nil && (n.Span.Name == names.SandboxStart || n.Span.Name == names.SwitchedOn)
}

// standIn returns the node for an absent span.
func (b *Builder) standIn(key spanKey, place Place) *Node {
	n := b.absent[key]
	if n == nil {
		n = &Node{key: key, ID: key.span}
		b.absent[key] = n
	}
	n.Place = max(n.Place, place)
	return n
}

// cut breaks a circle of parents: if the way up from n leads into one, its earliest
// span becomes a root. Each call has its own walk number, so that it recognises the
// ways of earlier calls.
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
	first.parent, first.Place = nil, loose
}

// hang attaches nodes to their parents, sorts and counts.
func (b *Builder) hang(t *Tree, nodes []*Node) {
	for _, n := range nodes {
		t.Spans++
		if n.Span.Failed {
			t.Errors++
		}
		if n.parent == nil {
			t.Roots = append(t.Roots, n)
			continue
		}
		n.parent.Children = append(n.parent.Children, n)
	}
	for _, n := range b.absent {
		if len(n.Children) == 0 {
			continue // they are other sandboxes'
		}
		for _, c := range n.Children {
			if c.start != 0 && (n.start == 0 || c.start < n.start) {
				n.start, n.end = c.start, c.start
			}
		}
		t.Roots = append(t.Roots, n)
		slices.SortFunc(n.Children, compare)
	}
	slices.SortFunc(t.Roots, compare)
	for _, n := range nodes {
		slices.SortFunc(n.Children, compare)
	}
}

// compare orders by start (unknown ones last), longer spans first, and otherwise in
// some fixed order.
func compare(a, b *Node) int {
	return cmp.Or(
		cmp.Compare(a.start-1, b.start-1), // 0 becomes the largest
		cmp.Compare(b.end, a.end),
		strings.Compare(a.Name(), b.Name()),
		bytes.Compare(a.key.trace[:], b.key.trace[:]),
		bytes.Compare(a.key.span[:], b.key.span[:]),
	)
}
