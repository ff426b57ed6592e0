package collate

import (
	"go.opentelemetry.io/otel/trace"
)

// settle gives a span its place, and so all below it, or has it wait for what is
// above it.
func (c *Collator) settle(n *node) {
	s := n.span
	parent := trace.SpanID(s.ParentID)
	if !parent.IsValid() || n.host && c.standsAlone(n) {
		c.root(n)
		return
	}
	if above, known := c.placeOf(parent); known {
		if c.isolates(n, above.trace) {
			c.split(n)
			return
		}
		if !c.outlives(n, parent) {
			c.follow(n, above)
		}
		return
	}
	if ours, ok := c.ours(parent); ok {
		c.under(n, ours)
		return
	}
	above := c.held.nodes[parent]
	runtimes := !n.host && c.calls.isRuntime(s.TraceID)
	if n.request() && c.isolates(n, s.TraceID) {
		c.split(n)
		return
	}
	if !n.host && !runtimes && n.request() && (above == nil || above.span == nil) {
		// An RPC's parent is in its request. Whose it is can be told by the trace.
		if c.calls.isOwn(s.TraceID) {
			c.keep(n, parent)
			return
		}
		if g, _ := c.guest.get(s.TraceID); g.remote {
			c.root(n)
			return
		}
	}
	now := c.opts.Now().UnixNano()
	if above == nil {
		above = &node{id: parent}
		c.held.nodes[parent] = above
	}
	if !c.held.join(n, above, now) {
		c.stats.Cut++
		c.root(n)
	}
}

// ours returns the call, or the request to the agent, whose span has the id; the
// sandbox's root is as good as one.
func (c *Collator) ours(id trace.SpanID) (call, bool) {
	if root := c.roots.that(func(r trace.SpanContext) bool { return r.SpanID() == id }); root != nil {
		return call{Call: Call{SpanContext: root.SpanContext}}, true
	}
	return c.calls.of(id)
}

// placeOf returns the place of a span that has been sent, or whose children have.
func (c *Collator) placeOf(id trace.SpanID) (place, bool) {
	if s, ok := c.sent.get(id); ok {
		return s.place, true
	}
	if a := c.awaited[id]; a != nil {
		return a.place, true
	}
	return place{}, false
}

// root places the top of what the agent did at one request, or on its own.
func (c *Collator) root(n *node) {
	if n.host {
		c.runtimeRoot(n)
		return
	}
	if n.rule == nil && c.opts.Mode == Collated && c.waits(n) {
		return
	}
	spot := c.spotOf(n)
	c.choose(n.span.TraceID, spot.place)
	c.sendTo(n, spot)
}

// follow places a span under its own parent, unless that had ended long before.
func (c *Collator) follow(n *node, p place) {
	if p.shift == nil {
		p.shift = c.ownShift(n)
	}
	if above, ok := c.sent.get(n.span.ParentID); ok && p.drop == "" && c.belongsLater(n, p.shift, above.end) {
		c.split(n)
		return
	}
	c.choose(n.span.TraceID, p)
	n.parent = c.visible(n.span.ParentID)
	c.send(n, p)
}

// under places a span whose parent is a call's span: the context was handed out.
func (c *Collator) under(n *node, caused call) {
	var p place
	switch sc := caused.SpanContext; {
	case !sc.IsSampled():
		p = place{trace: sc.TraceID(), drop: Unsampled}
	case caused.Method == "":
		p = c.in(sc.TraceID(), 0)
	default:
		p = c.belowCall(&caused).place
		if n.rule != nil {
			p.drop = c.quietness(n.rule, n.span, &match{call: caused})
		}
		p.shift = c.ownShift(n)
		if p.drop == "" && c.belongsLater(n, p.shift, caused.end) {
			c.split(n)
			return
		}
	}
	c.follow(n, p)
}

// keep places an RPC below what it names, which is of the sandbox but has not been here.
// What others have named in another trace cannot be in its own too.
func (c *Collator) keep(n *node, parent trace.SpanID) {
	p := c.kept(n.span.TraceID, n)
	if other, ok := c.named.get(parent); ok && other.trace != p.trace {
		c.stats.Cut++
		c.sendTo(n, c.fallen(p, other.trace, parent))
		return
	}
	c.named.put(parent, p)
	c.follow(n, p)
}

// kept is the place of a span that stays in a trace which the sandbox uses.
func (c *Collator) kept(id trace.TraceID, n *node) place {
	p := c.in(id, c.hostTime(n.span.End))
	if s, r := n.span, n.rule; r != nil {
		m := c.caller(r, s)
		if m != nil && m.SpanContext.TraceID() == id && c.recorded(&m.call) {
			p.top = m.SpanContext.SpanID()
		}
		if p.drop == "" {
			p.drop = c.quietness(r, s, m)
		}
	}
	return p
}

// expected returns the place of a span that was missing when what names it as its
// parent was sent.
func (c *Collator) expected(id trace.SpanID) (place, bool) {
	if a := c.awaited[id]; a != nil {
		return a.place, true
	}
	return c.named.get(id)
}

// arrived places a span that was expected: it must be in the trace of its children.
func (c *Collator) arrived(n *node, p place) {
	delete(c.awaited, n.id)
	s := n.span
	parent := trace.SpanID(s.ParentID)
	switch {
	case !parent.IsValid() || n.host && c.opts.Mode == Collated && c.standsAlone(n):
		spot := c.spotOf(n)
		if spot.trace == p.trace {
			p.shift = spot.shift
			spot.place = p
		} else {
			spot = c.fallen(p, spot.trace, spot.parent)
		}
		c.sendTo(n, spot)
		return
	case c.belowItself(n.id, parent):
		c.stats.Cut++
		c.sendTo(n, c.fallen(p, trace.TraceID{}, trace.SpanID{}))
		return
	}
	if waiting := c.held.nodes[parent]; waiting != nil && waiting != n {
		// What waits there follows, since n cannot.
		top := waiting.top()
		if top == n {
			c.stats.Cut++
			c.sendTo(n, c.fallen(p, trace.TraceID{}, trace.SpanID{}))
			return
		}
		c.inferAt(top.tree, &p)
	}
	switch above, known := c.traceOf(parent); {
	case known && above == p.trace && c.onlyNamed(parent) && !n.request():
		c.await(n, parent, p, n.host || c.calls.isRuntime(s.TraceID))
	case known && above == p.trace:
		n.parent = c.visible(parent)
		c.send(n, p)
	case known:
		c.stats.Cut++
		c.sendTo(n, c.fallen(p, above, parent))
	case n.request() && !n.host && !c.calls.isRuntime(s.TraceID):
		c.sendTo(n, c.fallen(p, trace.TraceID{}, trace.SpanID{}))
	default:
		c.await(n, parent, p, n.host || c.calls.isRuntime(s.TraceID))
	}
}

// fallen is the place of a span that must be where its children are, linked to
// what it belongs to by its own account.
func (c *Collator) fallen(p place, other trace.TraceID, span trace.SpanID) spot {
	s := spot{place: p, parent: p.top}
	if other.IsValid() && span.IsValid() {
		s.link = trace.NewSpanContext(trace.SpanContextConfig{TraceID: other, SpanID: span})
	}
	return s
}

// traceOf returns the trace of a span, whoever's it is; none if it is not sent.
func (c *Collator) traceOf(id trace.SpanID) (trace.TraceID, bool) {
	if p, ok := c.placeOf(id); ok {
		if p.drop != "" {
			return trace.TraceID{}, true
		}
		return p.trace, true
	}
	if ours, ok := c.ours(id); ok {
		return ours.SpanContext.TraceID(), true
	}
	if p, ok := c.named.get(id); ok {
		return p.trace, true
	}
	return trace.TraceID{}, false
}

// onlyNamed reports whether a span is known by nothing but the name that requests have
// for what is above them: whoever else is below it needs it to come, or a placeholder.
func (c *Collator) onlyNamed(id trace.SpanID) bool {
	_, sent := c.placeOf(id)
	_, ours := c.ours(id)
	return !sent && !ours
}

// maxDepth is how far up a tree is looked for a cycle; the agent's are some ten
// spans deep.
const maxDepth = 256

// belowItself tells that parent is among what has been sent below id, or too deep
// to tell.
func (c *Collator) belowItself(id, parent trace.SpanID) bool {
	for range maxDepth {
		if parent == id {
			return true
		}
		s, ok := c.sent.get(parent)
		if !ok {
			return false
		}
		parent = s.parent
	}
	return true
}

// choose remembers the place of a trace that the guest named: what comes late of
// it follows.
func (c *Collator) choose(id trace.TraceID, p place) {
	if c.calls.isRuntime(id) {
		return // one trace for all of the sandbox's life has no one place
	}
	g, _ := c.guest.get(id)
	if !g.placed {
		p.shift = nil
		g.place, g.placed = p, true
		c.guest.put(id, g)
	}
}
