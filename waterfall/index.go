package waterfall

import (
	"bytes"
	"cmp"
	"slices"

	"go.opentelemetry.io/otel/trace"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// maxSeen bounds the memory for recognising repeated spans (about 30 bytes
// each); beyond it, repeats are counted as spans of their own.
const maxSeen = 4 << 20

// Index learns from spans, as they are read, which stories there are. It keeps
// no span: some 30 bytes for each, and some 300 for each trace.
//
// A story is one run of a sandbox. Its spans lie in the sandbox's own trace and
// in the traces of callers (one for each request of a tracing containerd), which
// are linked. Joining whole traces by link would be wrong, since a caller's trace
// may start two pods; so what is joined is the part of each trace that belongs to
// one sandbox id. And the sandbox id alone is not enough: it is used again by the
// next run of a container with the same name.
type Index struct {
	parts map[part]int
	// groups is a forest: a part's group is the root that its index leads to.
	groups []group
	seen   map[spanKey]struct{}
}

// part is what one trace holds of one sandbox; sandbox is empty for spans whose
// resource does not name one.
type part struct {
	trace   trace.TraceID
	sandbox string
}

type group struct {
	up    int // itself at a root
	story *Story
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{parts: make(map[part]int), seen: make(map[spanKey]struct{})}
}

// Add takes note of spans. It keeps nothing that belongs to the caller.
func (x *Index) Add(spans []*tracepb.ResourceSpans) {
	for _, rs := range spans {
		sandbox := resourceText(rs.GetResource(), attrSandbox)
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				x.add(rs.GetResource(), sandbox, s)
			}
		}
	}
}

func (x *Index) add(res *resourcepb.Resource, sandbox string, s *tracepb.Span) {
	key, ok := keyOf(s.GetTraceId(), s.GetSpanId())
	if !ok || x.repeated(key) {
		return
	}
	g := x.group(part{key.trace, sandbox})
	for _, link := range s.GetLinks() {
		if to, ok := keyOf(link.GetTraceId(), link.GetSpanId()); ok && to.trace != key.trace {
			g = x.join(g, x.group(part{to.trace, sandbox}))
		}
	}
	x.groups[g].story.note(part{key.trace, sandbox}, res, s)
}

// repeated reports whether the span was added before, as delivery at least once
// makes happen.
func (x *Index) repeated(key spanKey) bool {
	if _, ok := x.seen[key]; ok {
		return true
	}
	if len(x.seen) < maxSeen {
		x.seen[key] = struct{}{}
	}
	return false
}

// group returns the root of the part's group, a new one for a new part.
func (x *Index) group(p part) int {
	i, ok := x.parts[p]
	if !ok {
		i = len(x.groups)
		x.parts[p] = i
		x.groups = append(x.groups, group{up: i, story: &Story{parts: make(map[part]struct{})}})
		return i
	}
	for x.groups[i].up != i {
		x.groups[i].up = x.groups[x.groups[i].up].up
		i = x.groups[i].up
	}
	return i
}

// join makes one group of two and returns its root.
func (x *Index) join(a, b int) int {
	if a == b {
		return a
	}
	if x.groups[a].story.Spans < x.groups[b].story.Spans {
		a, b = b, a
	}
	x.groups[b].up = a
	x.groups[a].story.absorb(x.groups[b].story)
	x.groups[b].story = nil
	return a
}

// Stories returns what was found, the oldest first. The index must not be used
// afterwards.
func (x *Index) Stories() []*Story {
	x.adopt()
	var stories []*Story
	for i, g := range x.groups {
		if g.up == i && g.story.Spans > 0 {
			g.story.finish()
			stories = append(stories, g.story)
		}
	}
	slices.SortFunc(stories, func(a, b *Story) int {
		return cmp.Or(a.Start.Compare(b.Start), bytes.Compare(a.Trace[:], b.Trace[:]))
	})
	return stories
}

// adopt gives spans that name no sandbox to the only sandbox of their trace.
func (x *Index) adopt() {
	owner := make(map[trace.TraceID]part)
	shared := make(map[trace.TraceID]bool)
	for p := range x.parts {
		if p.sandbox == "" {
			continue
		}
		if _, ok := owner[p.trace]; ok {
			shared[p.trace] = true
		}
		owner[p.trace] = p
	}
	for id, p := range owner {
		nameless := part{trace: id}
		if _, ok := x.parts[nameless]; ok && !shared[id] {
			x.join(x.group(nameless), x.group(p))
		}
	}
}
