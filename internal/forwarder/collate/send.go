package collate

import (
	"cmp"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/kata"
)

const (
	// ScopeName is the instrumentation scope of the agent's spans.
	ScopeName = "kata-agent"

	// RuntimeScopeName is that of the runtime's.
	RuntimeScopeName = "kata-runtime"

	// LostName is the name of a placeholder, which has the attribute
	// PlaceholderKey: a span that never arrived, though its children did. It lasts
	// from the first one's start to the last one's end. LostRuntimeName is that of
	// one that the runtime did not send.
	LostName        = "lost agent span"
	LostRuntimeName = "lost runtime span"
	PlaceholderKey  = "shimtrace.placeholder"

	// Original times of a span that had them corrected, by the guest's clock.
	OriginalStartKey = "shimtrace.original.start_time_unix_nano"
	OriginalEndKey   = "shimtrace.original.end_time_unix_nano"

	// ClippedKey is the attribute of a span that is drawn shorter than it was: where it
	// began before the sandbox, or before tracing was switched on, or ended after that
	// was switched off.
	ClippedKey = "shimtrace.clipped"
)

// batch collects spans for the sink.
type batch struct {
	max      int
	resource *resourcepb.Resource
	scope    *commonpb.InstrumentationScope
	sink     func([]*tracepb.ResourceSpans)
	spans    []*tracepb.Span
	cost     int // of spans, in memory
}

// maxBatchCost bounds what a batch may take of memory, in bytes, by one span.
const maxBatchCost = 512 << 10

func newBatch(opts Options, resource *resourcepb.Resource, scope string) batch {
	return batch{
		max:      opts.MaxBatch,
		resource: resource,
		scope:    &commonpb.InstrumentationScope{Name: scope},
		sink:     opts.Sink,
	}
}

func (b *batch) add(s *tracepb.Span, cost int) {
	b.spans = append(b.spans, s)
	b.cost += cost
	if len(b.spans) >= b.max || b.cost >= maxBatchCost {
		b.send()
	}
}

func (b *batch) send() {
	if len(b.spans) == 0 {
		return
	}
	spans := b.spans
	b.spans, b.cost = nil, 0
	b.sink([]*tracepb.ResourceSpans{{
		Resource:   b.resource,
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: b.scope, Spans: spans}},
	}})
}

// sendTo sends a span to its own spot, with all that is below it.
func (c *Collator) sendTo(n *node, at spot) {
	n.parent, n.link = c.visible(at.parent), at.link
	c.send(n, at.place)
}

// toSend is a span that send is at, and the shift of its times.
type toSend struct {
	*node
	shift *shift
}

// send sends a span and all that is below it. Where p has no shift, it is the span's own.
func (c *Collator) send(top *node, p place) {
	if top.tree != nil {
		c.held.uproot(top.tree)
	}
	if p.shift == nil {
		p.shift = c.ownShift(top)
	}
	c.stack = append(c.stack[:0], toSend{top, p.shift})
	var apart []*node
	for len(c.stack) > 0 {
		n := c.stack[len(c.stack)-1]
		c.stack = c.stack[:len(c.stack)-1]
		c.held.drop(n.node)
		p.shift = n.shift
		ended := c.sendOne(n.node, p)
		from := len(c.stack)
		for child := n.first; child != nil; child = child.next {
			below := c.ownShift(child)
			if n.host && c.isolates(child, n.span.TraceID) || p.drop == "" && c.belongsLater(child, below, ended) {
				apart = append(apart, child)
				continue
			}
			child.parent = c.visible(n.id)
			c.stack = append(c.stack, toSend{child, below})
		}
		slices.Reverse(c.stack[from:])
	}
	for _, n := range apart {
		n.next = nil
		n.stand()
		c.split(n)
	}
}

// sendOne sends a span alone, and returns when it ended by the host's clock.
func (c *Collator) sendOne(n *node, p place) int64 {
	was := n.when(p.shift)
	off := (p.drop == "" || p.drop == Unsampled) && !n.needed && !c.records(was)
	if p.traced == nil || c.opts.Mode == Isolated {
		p.traced = c.roots.at(was.end) // its trace may be of more than one time
	}
	below := p
	if n.host || n.rule != nil && n.rule.life {
		below.shift = nil // of what is below it the times say little
	}
	c.sent.put(n.id, sent{
		place: below, parent: n.parent, end: was.end, off: off,
		stale: n.host && !strings.HasPrefix(n.span.Name, kata.RequestPrefix),
	})
	c.remembersRequest(n)
	switch {
	case off:
		c.drop(Off)
	case p.drop != "":
		c.drop(p.drop)
	default:
		c.emit(n, p, was)
	}
	return was.end
}

// await sends a span whose parent is missing, is the runtime's if host, and may yet
// come.
func (c *Collator) await(n *node, parent trace.SpanID, p place, host bool) {
	if p.drop != "" {
		c.sendTo(n, spot{place: p})
		return
	}
	a := c.awaited[parent]
	named, isNamed := c.named.get(parent)
	switch {
	case parent == p.top: // a call that has been forgotten
		c.sendTo(n, spot{place: p, parent: p.top})
		return
	case a == nil && len(c.awaited) >= c.opts.MaxAwaited,
		// Others have drawn it into another trace.
		a != nil && a.trace != p.trace, isNamed && named.trace != p.trace:
		c.stats.Cut++
		c.sendTo(n, spot{place: p, parent: p.top})
		return
	case a == nil:
		missing := p
		missing.shift = nil
		c.awaited[parent] = &awaited{place: missing, host: host}
	}
	n.parent = parent
	c.send(n, p)
}

// emit gives a span to the sink that was at a time by the host's clock.
func (c *Collator) emit(n *node, p place, was period) {
	s, at := n.span, c.draw(n, was, p.traced)
	if s.TraceID != p.trace {
		c.stats.Rewritten++
		s.TraceID, s.TraceState = p.trace, ""
	}
	s.ParentID = n.parent
	start, end := s.Start, s.End
	s.Start, s.End = uint64(at.start), uint64(at.end)
	m := new(tracepb.Span)
	if err := proto.Unmarshal(s.AppendOTLP(nil), m); err != nil {
		c.drop(Malformed)
		return
	}
	if s.Start != start || s.End != end {
		c.stats.Corrected++
		m.Attributes = append(m.Attributes, number(OriginalStartKey, clamped(start)), number(OriginalEndKey, clamped(end)))
		for _, e := range m.Events {
			e.TimeUnixNano = uint64(at.nearest(p.shift.of(clamped(e.TimeUnixNano))))
		}
	}
	if at != was {
		m.Attributes = append(m.Attributes, yes(ClippedKey))
	}
	if !n.host {
		c.markClaims(s, m)
	}
	c.keepLinks(m)
	if n.link.IsValid() {
		m.Links = append(m.Links, linkTo(n.link))
	}
	if a := c.awaited[n.parent]; a != nil {
		a.drew(s.Start, s.End)
	}
	c.stats.Sent++
	c.put(m, n.cost, n.host)
}

// put hands a span to the batch. One that has no parent is linked to the sandbox.
func (c *Collator) put(m *tracepb.Span, cost int, host bool) {
	if root := c.roots.at(int64(m.EndTimeUnixNano)); len(m.ParentSpanId) == 0 && root.IsValid() {
		m.Links = append(m.Links, linkTo(root.SpanContext))
	}
	if host {
		c.outRuntime.add(m, cost)
		return
	}
	c.out.add(m, cost)
}

// sendAll hands to the sink what is collected for it.
func (c *Collator) sendAll() {
	c.out.send()
	c.outRuntime.send()
}

// keepLinks leaves those of a span's links that stay within the sandbox: who
// follows links must not be led to it from elsewhere, or elsewhere from it.
func (c *Collator) keepLinks(m *tracepb.Span) {
	kept := m.Links[:0]
	for _, l := range m.Links {
		id := trace.TraceID(l.TraceId)
		if !c.calls.isOwn(id) {
			g, _ := c.guest.get(id)
			if !g.placed || g.place.drop != "" {
				m.DroppedLinksCount++
				continue
			}
			l.TraceId = slices.Clone(g.place.trace[:])
		}
		kept = append(kept, l)
	}
	m.Links = kept
}

// placeholders sends a span for each parent that never came.
func (c *Collator) placeholders() {
	ids := make([]trace.SpanID, 0, len(c.awaited))
	for id, a := range c.awaited {
		// What has become known as a span of the host's since needs none.
		if _, known := c.ours(id); a.children > 0 && !known {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(x, y trace.SpanID) int {
		return cmp.Or(cmp.Compare(c.awaited[x].begin, c.awaited[y].begin), slices.Compare(x[:], y[:]))
	})
	for _, id := range ids {
		c.placeholder(id, c.awaited[id])
	}
	clear(c.awaited)
}

// placeholder sends a span for a parent that has not come.
func (c *Collator) placeholder(id trace.SpanID, a *awaited) {
	c.stats.Placeholders++
	c.sent.put(id, sent{place: a.place, parent: a.top, end: int64(a.end)})
	name := LostName
	if a.host {
		name = LostRuntimeName
	}
	m := &tracepb.Span{
		TraceId:           a.trace[:],
		SpanId:            slices.Clone(id[:]),
		Name:              name,
		Kind:              tracepb.Span_SPAN_KIND_INTERNAL,
		StartTimeUnixNano: a.begin,
		EndTimeUnixNano:   a.end,
		Attributes:        []*commonpb.KeyValue{yes(PlaceholderKey)},
	}
	if a.top.IsValid() {
		m.ParentSpanId = a.top[:]
	}
	c.put(m, nodeCost, a.host)
}

func linkTo(sc trace.SpanContext) *tracepb.Span_Link {
	traceID, spanID := sc.TraceID(), sc.SpanID()
	return &tracepb.Span_Link{TraceId: traceID[:], SpanId: spanID[:]}
}

func yes(key string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}}
}

func number(key string, n int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: n}}}
}
