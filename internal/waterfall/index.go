package waterfall

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Bounds of an index. If a sandbox has more traces than maxTraces, as only a hostile
// one has, one story gets the rest. With more traces in all than maxParts, the older
// half of the stories is forgotten.
const (
	maxTraces = 1 << 14
	maxParts  = 1 << 16
)

// Index finds the stories in spans as they are read. It keeps no span, and takes at
// most some 60 MB.
//
// A story is one run of a sandbox. Its spans are in the sandbox's own trace and in
// callers' traces (one for each request of a tracing containerd), which are linked.
// Joining whole traces by link would be wrong, since a caller's trace may start two
// pods. So the index joins the part of each trace that belongs to one run of one
// sandbox id. The resource names the run; in journals of versions before 0.4 it does
// not, and the sandbox id and the links must do.
type Index struct {
	reader reader
	posted posted // what other programs have posted
	texts  interner
	seen   *seen
	span   Span

	runs  []run
	byRun map[runID]int
	parts map[part]int
	// groups is a forest: a part's group is the root above its index.
	groups []group

	added   int // messages
	omitted int // spans without a sandbox
	outside int // spans of other programs
	evicted int // stories

	// The last span's, since the next one often shares them.
	lastResource *resource
	lastRun      int
	lastPart     part
	lastGroup    int
}

// runID distinguishes the runs of sandboxes, as far as resources do.
type runID struct{ sandbox, run string }

type run struct {
	runID
	traces int
	home   int // the first of its groups
}

// part is the spans of one run in one trace.
type part struct {
	trace trace.TraceID
	run   int32
}

type group struct {
	up    int    // a root points to itself
	story *Story // nil without spans
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	x := &Index{seen: newSeen(), posted: newPosted()}
	x.begin()
	return x
}

func (x *Index) begin() {
	x.runs, x.byRun, x.parts, x.groups = nil, make(map[runID]int), make(map[part]int), nil
	x.lastResource, x.lastPart = nil, part{}
}

// Add adds the spans of a TracesData message, recorded at a time of the host's clock.
// It keeps no part of data. It returns an error if data is malformed; what was read
// until then counts.
func (x *Index) Add(data []byte, recorded time.Time) error {
	if len(x.parts) >= maxParts {
		x.evict()
	}
	x.added++
	at := uint64(max(0, recorded.UnixNano()))
	return x.reader.each(data, func(res *resource, by Maker, span []byte) {
		if x.span.read(span, by, x.texts.intern) && x.span.key != (spanKey{}) && x.seen.add(x.span.key) {
			x.note(res, by, at)
		}
	})
}

func (x *Index) note(res *resource, by Maker, recorded uint64) {
	s := &x.span
	run := x.runOf(res)
	g := x.group(part{s.key.trace, int32(run)})
	if g < 0 {
		x.omitted++
		return
	}
	for _, to := range s.links {
		if to.trace != s.key.trace {
			if linked := x.group(part{to.trace, int32(run)}); linked >= 0 {
				g = x.join(g, linked)
			}
		}
	}
	if x.groups[g].story == nil {
		x.groups[g].story = new(Story)
	}
	story := x.groups[g].story
	story.last = x.added
	story.note(res, by, s, recorded)
}

func (x *Index) runOf(res *resource) int {
	if res == x.lastResource {
		return x.lastRun
	}
	i := x.addRun(runID{res.sandbox, res.run})
	x.lastResource, x.lastRun = res, i
	return i
}

// addRun returns the index of the run with that id, a new one if need be.
func (x *Index) addRun(id runID) int {
	i, ok := x.byRun[id]
	if !ok {
		i = len(x.runs)
		x.byRun[id] = i
		x.runs = append(x.runs, run{runID: id, home: -1})
	}
	return i
}

// addPart puts a new part into a group.
func (x *Index) addPart(p part, group int) {
	x.parts[p] = group
	run := &x.runs[p.run]
	run.traces++
	if run.home < 0 {
		run.home = group
	}
}

// find returns the root above a group.
func (x *Index) find(i int) int {
	for x.groups[i].up != i {
		x.groups[i].up = x.groups[x.groups[i].up].up
		i = x.groups[i].up
	}
	return i
}

// group returns the root of the part's group, a new one for a new part, or -1 at the
// bounds.
func (x *Index) group(p part) int {
	if p == x.lastPart && len(x.parts) > 0 {
		return x.find(x.lastGroup)
	}
	i, ok := x.parts[p]
	if !ok {
		if i, ok = x.overflow(p); ok {
			return i
		}
		i = len(x.groups)
		x.groups = append(x.groups, group{up: i})
		x.addPart(p, i)
	}
	x.lastPart, x.lastGroup = p, i
	return x.find(i)
}

// overflow returns the group for a new trace of a run with too many of them.
func (x *Index) overflow(p part) (int, bool) {
	switch r := x.runs[p.run]; {
	case r.traces < maxTraces && len(x.parts) < 2*maxParts:
		return 0, false
	case r.home < 0 || r.sandbox == "":
		return -1, true
	default:
		return x.find(r.home), true
	}
}

// join merges two groups and returns the root.
func (x *Index) join(a, b int) int {
	if a == b {
		return a
	}
	if x.groups[a].spans() < x.groups[b].spans() {
		a, b = b, a
	}
	x.groups[b].up = a
	if from := x.groups[b].story; from != nil {
		x.groups[a].story.absorb(from)
		x.groups[b].story = nil
	}
	return a
}

func (g *group) spans() int {
	if g.story == nil {
		return 0
	}
	return g.story.Spans
}

// evict forgets the half of the stories that were added to least recently.
func (x *Index) evict() {
	var last []int
	for _, g := range x.groups {
		if g.story != nil {
			last = append(last, g.story.last)
		}
	}
	slices.Sort(last)
	from := 0
	if len(last) > 0 {
		from = last[len(last)/2]
	}
	old := *x
	x.begin()
	moved := make(map[int]int) // roots of groups
	for p, i := range old.parts {
		root := old.find(i)
		story := old.groups[root].story
		if story == nil || story.last < from {
			continue
		}
		to, ok := moved[root]
		if !ok {
			to = len(x.groups)
			moved[root] = to
			x.groups = append(x.groups, group{up: to, story: story})
		}
		x.addPart(part{p.trace, int32(x.addRun(old.runs[p.run].runID))}, to)
	}
	x.evicted += len(last) - len(moved)
}

// Omitted returns the number of spans without a sandbox that belong to no story because
// there were too many traces, and the number of oldest stories forgotten for that reason.
func (x *Index) Omitted() (spans, stories int) { return x.omitted, x.evicted }

// Outside returns the number of other programs' spans that are not known any more, since
// there were too many of their traces. Most of these traces have to do with no sandbox.
func (x *Index) Outside() int { return x.outside }

// Snapshot returns an index of what has been added so far. Its Stories may be asked for while
// more is added to x. It takes time by the number of stories and of other programs' traces, not
// of spans.
func (x *Index) Snapshot() *Index {
	s := &Index{posted: x.posted, runs: slices.Clone(x.runs), byRun: maps.Clone(x.byRun), parts: maps.Clone(x.parts), groups: slices.Clone(x.groups)}
	for i, g := range s.groups {
		if g.story != nil {
			s.groups[i].story = g.story.clone()
		}
	}
	return s
}

// Stories returns the stories, the oldest first. Add must not be called afterwards.
// Traces of other programs that have to do with no sandbox are no stories: see Others.
func (x *Index) Stories() []*Story {
	x.seen, x.texts, x.reader = nil, interner{}, reader{}
	x.adopt()
	for p, i := range x.parts {
		if story := x.groups[x.find(i)].story; story != nil {
			story.Traces = append(story.Traces, p.trace)
			story.setSandbox(x.runs[p.run].sandbox)
		}
	}
	var stories []*Story
	for i, g := range x.groups {
		if g.up == i && g.story != nil {
			g.story.index, g.story.group = x, i
			stories = append(stories, g.story)
		}
	}
	x.posted.assign(stories)
	for _, s := range stories {
		s.finish()
	}
	slices.SortFunc(stories, func(a, b *Story) int {
		return cmp.Or(a.Start.Compare(b.Start), bytes.Compare(a.Trace[:], b.Trace[:]))
	})
	return stories
}

// adopt assigns spans that name no sandbox to the only sandbox of their trace.
func (x *Index) adopt() {
	nameless, ok := x.byRun[runID{}]
	if !ok {
		return
	}
	owner := make(map[trace.TraceID]part)
	shared := make(map[trace.TraceID]bool)
	for p := range x.parts {
		if int(p.run) == nameless {
			continue
		}
		if _, ok := owner[p.trace]; ok {
			shared[p.trace] = true
		}
		owner[p.trace] = p
	}
	for id, p := range owner {
		if lost, ok := x.parts[part{id, int32(nameless)}]; ok && !shared[id] {
			x.join(x.find(lost), x.group(p))
		}
	}
}

// has reports whether a span of the resource belongs to the story.
func (x *Index) has(s *Story, res *resource, id trace.TraceID) bool {
	run, ok := x.byRun[runID{res.sandbox, res.run}]
	if !ok {
		return false
	}
	i, ok := x.parts[part{id, int32(run)}]
	if !ok {
		i, ok = x.overflow(part{id, int32(run)})
		ok = ok && i >= 0
	}
	return ok && x.find(i) == s.group
}
