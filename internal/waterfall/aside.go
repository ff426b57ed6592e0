package waterfall

import (
	"bytes"
	"slices"

	"go.opentelemetry.io/otel/trace"
)

// aside keeps spans that are not of a story, by trace. A caller's trace may turn out to be of
// the story when a span of the story arrives that is in the trace, or linked to it.
type aside struct {
	most, bytes int
	traces      map[trace.TraceID]*asideTrace
	order       []trace.TraceID // the oldest first
}

type asideTrace struct {
	spans []asideSpan
	bytes int
}

type asideSpan struct {
	res *resource
	by  Maker
	raw []byte
}

// asideBytes is about what a span takes besides its own bytes.
const asideBytes = 64

// put keeps a span; at the bound, the oldest traces go.
func (a *aside) put(res *resource, by Maker, raw []byte, id trace.TraceID) {
	if a.most == 0 || !id.IsValid() {
		return
	}
	t := a.traces[id]
	if t == nil {
		t = &asideTrace{}
		a.keep(id, t)
	}
	t.spans = append(t.spans, asideSpan{res, by, bytes.Clone(raw)})
	t.bytes += asideBytes + len(raw)
	a.bytes += asideBytes + len(raw)
	for a.bytes > a.most {
		a.bytes -= a.traces[a.order[0]].bytes
		delete(a.traces, a.order[0])
		a.order = a.order[1:]
	}
}

// keep adds a whole trace.
func (a *aside) keep(id trace.TraceID, t *asideTrace) {
	if a.traces == nil {
		a.traces = make(map[trace.TraceID]*asideTrace)
	}
	a.traces[id] = t
	a.order = append(a.order, id)
	a.bytes += t.bytes
}

// Update replaces the builder's story by a later view of the same story. It takes the spans
// that now belong to the story, and drops those of other programs that turned out to be of
// several stories.
func (b *Builder) Update(s *Story) {
	b.story = s
	b.nodes = slices.DeleteFunc(b.nodes, func(n *Node) bool {
		gone := n.by == ByOthers && !s.hasPosted(n.key.trace) && s.index.posted.traces[n.key.trace] != nil
		if gone {
			delete(b.byKey, n.key)
		}
		return gone
	})
	traces := make(map[trace.TraceID]bool)
	for _, id := range s.Traces {
		traces[id] = true
	}
	old := b.aside
	b.aside = aside{most: old.most}
	for _, id := range old.order {
		t := old.traces[id]
		if !traces[id] {
			b.aside.keep(id, t)
			continue
		}
		for _, span := range t.spans {
			b.take(span.res, span.by, span.raw) // another sandbox's is put aside again
		}
	}
}
