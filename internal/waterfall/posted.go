package waterfall

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Other programs of the host post spans of their own: of the caller above a sandbox's
// calls, or of what happens below them. They are in the callers' traces, and name no
// sandbox. A trace of theirs belongs to the stories that have spans in it, or to the
// one that it is linked to.

// Bounds of what other programs post. At maxPosted traces, half of them are forgotten: first
// those that have to do with no sandbox, and among these first those of a single span, such as
// the statistics that containerd asks of each task every second.
const (
	maxPosted      = 1 << 14
	maxPostedLinks = 8
	// maxHops bounds how many links away from a story a trace may be.
	maxHops = 4
)

// posted are the traces of other programs.
type posted struct {
	reader reader
	traces map[trace.TraceID]*postedTrace
	// owners are the stories that a trace belongs to; set by assign.
	owners map[trace.TraceID][]*Story
}

type postedTrace struct {
	story  *Story // of these spans alone
	linked []trace.TraceID
}

func newPosted() posted {
	return posted{reader: reader{others: true}, traces: make(map[trace.TraceID]*postedTrace)}
}

// AddPosted adds the spans of a TracesData message that other programs have posted, as
// Add does.
func (x *Index) AddPosted(data []byte, recorded time.Time) error {
	if len(x.posted.traces) >= maxPosted {
		x.outside += x.posted.evict(x.sandboxTraces())
	}
	x.added++
	at := uint64(max(0, recorded.UnixNano()))
	return x.posted.reader.each(data, func(res *resource, by Maker, span []byte) {
		if x.span.read(span, by, x.texts.intern) && x.span.key != (spanKey{}) && x.seen.add(x.span.key) {
			x.posted.note(res, &x.span, at, x.added)
		}
	})
}

func (p *posted) note(res *resource, s *Span, recorded uint64, number int) {
	t := p.traces[s.key.trace]
	if t == nil {
		t = &postedTrace{story: new(Story)}
		p.traces[s.key.trace] = t
	}
	t.story.last = number
	t.story.note(res, ByOthers, s, recorded)
	for _, to := range s.links {
		if to.trace != s.key.trace && len(t.linked) < maxPostedLinks && !slices.Contains(t.linked, to.trace) {
			t.linked = append(t.linked, to.trace)
		}
	}
}

// sandboxTraces returns the traces that sandboxes' spans are in, or linked to.
func (x *Index) sandboxTraces() map[trace.TraceID]bool {
	of := make(map[trace.TraceID]bool, len(x.parts))
	for p := range x.parts {
		if x.runs[p.run].sandbox != "" {
			of[p.trace] = true
		}
	}
	return of
}

// evict forgets the half of the traces that is worth least, and returns how many spans
// they had. Traces of sandboxes, and traces linked with these, are worth most. Traces of
// several spans come next, since a sandbox's may yet join them. Among equals, those added to
// last are worth more.
func (p *posted) evict(ofSandboxes map[trace.TraceID]bool) (spans int) {
	for range maxHops {
		more := len(ofSandboxes)
		for id, t := range p.traces {
			if ofSandboxes[id] || slices.ContainsFunc(t.linked, func(to trace.TraceID) bool { return ofSandboxes[to] }) {
				ofSandboxes[id] = true
				for _, to := range t.linked {
					ofSandboxes[to] = true
				}
			}
		}
		if len(ofSandboxes) == more {
			break
		}
	}
	all := slices.Collect(maps.Keys(p.traces))
	worth := func(id trace.TraceID) int {
		switch {
		case ofSandboxes[id]:
			return 2
		case p.traces[id].story.Spans > 1:
			return 1
		}
		return 0
	}
	slices.SortFunc(all, func(a, b trace.TraceID) int {
		return cmp.Or(cmp.Compare(worth(a), worth(b)), cmp.Compare(p.traces[a].story.last, p.traces[b].story.last))
	})
	for _, id := range all[:len(all)/2] {
		spans += p.traces[id].story.Spans
		delete(p.traces, id)
	}
	return spans
}

// assign gives each trace to the stories with spans in it, otherwise to the only story
// that links lead to. A story counts the spans of the traces that are its alone.
func (p *posted) assign(stories []*Story) {
	p.owners = make(map[trace.TraceID][]*Story)
	front := make(map[trace.TraceID][]*Story) // of the stories' traces, whoever made their spans
	for _, s := range stories {
		for _, id := range s.Traces {
			if !slices.Contains(front[id], s) {
				front[id] = append(front[id], s)
			}
		}
	}
	for id, owners := range front {
		if p.traces[id] != nil {
			p.owners[id] = owners
		}
	}
	near := make(map[trace.TraceID][]trace.TraceID)
	for id, t := range p.traces {
		for _, to := range t.linked {
			near[id] = append(near[id], to)
			near[to] = append(near[to], id)
		}
	}
	reached := make(map[trace.TraceID][]*Story)
	for range maxHops {
		next := make(map[trace.TraceID][]*Story)
		for id, owners := range front {
			for _, to := range near[id] {
				if p.traces[to] == nil || p.owners[to] != nil || len(owners) != 1 || slices.Contains(reached[to], owners[0]) {
					continue
				}
				if len(reached[to]) < 2 { // more make no difference
					reached[to] = append(reached[to], owners[0])
					next[to] = nil
				}
			}
		}
		for id := range next {
			next[id] = reached[id]
		}
		front = next
	}
	for id, owners := range reached {
		if len(owners) == 1 {
			p.owners[id] = owners
		}
	}
	for id, owners := range p.owners {
		if len(owners) == 1 {
			owners[0].adopt(p.traces[id].story, id)
		}
	}
}

// adopt adds a trace of other programs.
func (s *Story) adopt(o *Story, id trace.TraceID) {
	s.absorb(o)
	if !slices.Contains(s.Traces, id) {
		s.Traces = append(s.Traces, id)
	}
}

// Others returns the traces of other programs that have to do with no sandbox, each as a
// story, the oldest first. Stories must have been called before, and Others must not.
func (x *Index) Others() (stories []*Story) {
	p := &x.posted
	for id, t := range p.traces {
		if p.owners[id] != nil {
			continue
		}
		s := t.story
		s.index, s.group, s.Traces = x, -1, []trace.TraceID{id}
		s.finish()
		p.owners[id] = []*Story{s}
		stories = append(stories, s)
	}
	slices.SortFunc(stories, func(a, b *Story) int {
		return cmp.Or(a.Start.Compare(b.Start), bytes.Compare(a.Trace[:], b.Trace[:]))
	})
	return stories
}

// hasPosted reports whether another program's trace belongs to the story.
func (s *Story) hasPosted(id trace.TraceID) bool {
	return s.index != nil && slices.Contains(s.index.posted.owners[id], s)
}

// Shares reports whether other sandboxes have spans in one of the story's traces, so that
// a Builder of the story has to see their spans as well.
func (s *Story) Shares() bool { return slices.ContainsFunc(s.Traces, s.shares) }

// shares reports whether other programs' spans in a trace are not the story's alone.
func (s *Story) shares(id trace.TraceID) bool {
	return s.index != nil && len(s.index.posted.owners[id]) > 1
}

// AddPosted adds the spans of a TracesData message that other programs have posted, as
// Add does.
func (b *Builder) AddPosted(data []byte) error {
	return b.posted.each(data, b.take)
}

// maxForeign bounds the remembered parents of other sandboxes' spans.
const maxForeign = 1 << 16

// foreigner notes a span of another sandbox in a trace of the story. The spans above it are
// not the story's, unless the story's own spans are below them as well.
func (b *Builder) foreigner(raw []byte, key spanKey) {
	if b.story == nil || !b.story.shares(key.trace) || len(b.foreign) >= maxForeign {
		return
	}
	var s Span
	if s.read(raw, ByOthers, b.texts.intern) && s.parent.IsValid() {
		b.foreign[spanKey{key.trace, s.parent}] = struct{}{}
	}
}

// prune returns the nodes without those spans of other programs in shared traces that lead
// only to other sandboxes. Of such a trace a story has the spans above its own, and what else
// is below those.
func (b *Builder) prune() []*Node {
	if len(b.foreign) == 0 {
		return b.nodes
	}
	doubtful := func(n *Node) bool { return n.by == ByOthers && b.story.shares(n.key.trace) }
	wanted, foreign := make(map[*Node]bool), make(map[*Node]bool)
	mark := func(set map[*Node]bool, n *Node) {
		for ; n != nil && !set[n]; n = n.parent {
			set[n] = true
		}
	}
	for _, n := range b.nodes {
		if !doubtful(n) {
			mark(wanted, n)
		}
		if _, is := b.foreign[n.key]; is {
			mark(foreign, n)
		}
	}
	kept := make(map[*Node]bool) // decided
	var way []*Node
	for _, n := range b.nodes {
		way = way[:0]
		for at := n; at != nil; at = at.parent {
			if _, decided := kept[at]; decided {
				break
			}
			way = append(way, at)
		}
		for _, at := range slices.Backward(way) { // from the top
			kept[at] = wanted[at] || !doubtful(at) || !foreign[at] && at.parent != nil && kept[at.parent]
		}
	}
	return slices.DeleteFunc(slices.Clone(b.nodes), func(n *Node) bool { return !kept[n] })
}

// maxCallers bounds how far up a call's callers are looked at.
const maxCallers = 64

// raise puts the sandbox's root below the span of another program in which it happened,
// and which led to one of the sandbox's calls: containerd's RunPodSandbox, or what the
// pod's annotations name. The picture then has one root.
func (b *Builder) raise() {
	root := slices.IndexFunc(b.nodes, func(n *Node) bool { return n.isRoot() && n.parent == nil })
	if root < 0 {
		return
	}
	r := b.nodes[root]
	for _, n := range b.nodes {
		if n.by != ByShim || n == r {
			continue
		}
		for _, caller := range b.callers(n) {
			for at, i := caller, 0; at != nil && i < maxCallers; at, i = at.parent, i+1 {
				if at.by == ByOthers && at.start <= r.start && r.end <= at.end && at.start != 0 && at != r {
					r.parent, r.Place = at, Linked
					return
				}
			}
		}
	}
}

// callers returns the other programs' spans that a call is below, or linked to.
func (b *Builder) callers(n *Node) (all []*Node) {
	if n.parent != nil && n.parent.by == ByOthers {
		all = append(all, n.parent)
	}
	for _, to := range n.Span.links {
		if p := b.byKey[to]; p != nil && p.by == ByOthers {
			all = append(all, p)
		}
	}
	return all
}
