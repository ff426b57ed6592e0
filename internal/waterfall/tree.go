package waterfall

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
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
	// called is below the span that is its parent, or a root without a parent.
	called Place = iota
	// Linked is below a span of another trace that it has a link to: its parent
	// is a caller whose spans are not ours.
	Linked
	// loose is a root because the parents lead in a circle.
	loose
	// absent is no span but stands for one that is named as a parent and not
	// here: still running, in somebody else's trace, or lost.
	absent
	// unstarted is Absent, and known to be the sandbox's "sandbox start".
	unstarted
)

// Node is one span with what happened because of it.
type Node struct {
	Span     *Span // nil when the span is Absent
	Place    Place
	Children []*Node
	// ID is the span's, also when it is absent; zero when it has no valid one.
	ID trace.SpanID

	by         maker
	service    string
	start, end uint64 // nanoseconds since 1970; 0 is unknown
	key        spanKey
	parent     *Node
	walk       int  // of the search for circles that came here first
	drawn      bool // by a line of its own
	below      int  // how many spans are
}

// Limits bound a tree: the spans in it, and the bytes that it takes in memory, roughly.
// Of the bytes, guests' spans get at most three quarters, so that however many there
// are, the host's are in the picture. Zero is no limit.
type Limits struct {
	Spans int
	Bytes int
}

// Builder makes the tree of one story out of a journal's messages.
type Builder struct {
	story   *Story
	limits  Limits
	details bool

	reader reader
	texts  interner
	bytes  int
	tree   *Tree
	nodes  []*Node
	byKey  map[spanKey]*Node
	absent map[spanKey]*Node
}

// NewBuilder returns a builder of the story's tree. The details of spans, which a
// verbose picture has, are kept if they are asked for.
func NewBuilder(s *Story, l Limits, details bool) *Builder {
	return &Builder{
		story: s, limits: l, details: details,
		byKey: make(map[spanKey]*Node), absent: make(map[spanKey]*Node), tree: &Tree{},
	}
}

// Add takes those spans of a TracesData message that belong to the story. It keeps
// nothing of data. Where a span is repeated, the first one counts. An error says that
// data is no such message; what was read until then counts.
func (b *Builder) Add(data []byte) error {
	return b.reader.each(data, func(res *resource, by maker, raw []byte) {
		key := readKey(raw)
		if b.story != nil && (key == spanKey{} || !b.story.has(res, key)) {
			return
		}
		b.add(res, by, raw, key)
	})
}

// nodeBytes is about what a node takes beside its texts and lists.
const nodeBytes = 512

func (b *Builder) add(res *resource, by maker, raw []byte, key spanKey) {
	if key != (spanKey{}) && b.byKey[key] != nil {
		b.tree.Repeated++
		return
	}
	size := nodeBytes
	if b.details {
		size += len(raw)
	}
	if b.full(by, size) {
		b.tree.Omitted++
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
	b.tree.Spans++
	if s.Failed {
		b.tree.Errors++
	}
	b.nodes = append(b.nodes, n)
}

// full reports whether there is no room for a span of so many bytes.
func (b *Builder) full(by maker, size int) bool {
	if b.limits.Spans > 0 && b.tree.Spans >= b.limits.Spans {
		return true
	}
	most := b.limits.Bytes
	if by == byAgent {
		most -= most / 4
	}
	return b.limits.Bytes > 0 && b.bytes+size > most
}

// Tree returns the tree of what was added. Nothing must be added afterwards.
func (b *Builder) Tree() *Tree {
	for _, n := range b.nodes {
		b.place(n)
	}
	for i, n := range b.nodes {
		cut(n, i+1)
	}
	b.hang()
	return b.tree
}

// place finds the node's parent: its own; else the span it is linked to, which
// is how calls in callers' traces come below their sandbox; else a stand-in.
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
	case linked:
		n.parent, n.Place = b.standIn(link, unstarted), Linked
	case hasParent && n.by == byShim && n.Span.Name == names.ShimStart:
		n.parent = b.standIn(up, unstarted)
	case hasParent:
		n.parent = b.standIn(up, absent)
	}
}

// standIn returns the node for a span that is not here.
func (b *Builder) standIn(key spanKey, place Place) *Node {
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
	first.parent, first.Place = nil, loose
}

// hang gives every node to its parent and sorts.
func (b *Builder) hang() {
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

func (n *Node) name() string {
	if n.Span == nil {
		return ""
	}
	return n.Span.Name
}

// compare orders by start (unknown ones last), the longer before the shorter,
// and in any case in one order.
func compare(a, b *Node) int {
	return cmp.Or(
		cmp.Compare(a.start-1, b.start-1), // 0 becomes the largest
		cmp.Compare(b.end, a.end),
		strings.Compare(a.name(), b.name()),
		bytes.Compare(a.key.trace[:], b.key.trace[:]),
		bytes.Compare(a.key.span[:], b.key.span[:]),
	)
}
