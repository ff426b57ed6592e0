package collate

import (
	"go.opentelemetry.io/otel/trace"
)

// infer gives a place to a tree that has waited long enough.
func (c *Collator) infer(t *tree) {
	c.stats.Inferred++
	switch top := t.top; {
	case !t.stray():
		c.inferAt(t, nil)
	case top.host:
		c.alone(top)
	default:
		at := c.spotOf(top)
		c.choose(top.span.TraceID, at.place)
		c.sendTo(top, at)
	}
}

// inferAt puts a tree into a place, by default the one that can be inferred. The
// children of a missing top name it as their parent all the same, for it may yet
// come; only RPCs do not, since what is above them is not the agent's.
func (c *Collator) inferAt(t *tree, p *place) {
	top := t.top
	if top.span != nil {
		c.sendTo(top, spot{place: *p, parent: p.top})
		return
	}
	if named, ok := c.named.get(top.id); ok {
		p = &named
	}
	clues := c.cluesOf(top)
	c.held.uproot(t)
	c.held.drop(top)
	for _, n := range top.children() {
		if c.isolates(n, n.span.TraceID) {
			c.split(n)
			continue
		}
		if n.request() && !n.host {
			if c.calls.isRuntime(n.span.TraceID) {
				// What it names is the runtime's, and may yet come.
				c.awaitRuntime(n, top.id)
				continue
			}
			g, _ := c.guest.get(n.span.TraceID)
			g.remote = true
			c.guest.put(n.span.TraceID, g)
			c.root(n)
			continue
		}
		if p == nil {
			inferred := c.placeOfLost(clues)
			p = &inferred
		}
		c.choose(n.span.TraceID, *p)
		c.await(n, top.id, *p, n.host)
	}
}

// clues are what its children tell of a span that is missing.
type clues struct {
	rpc             *rpc
	container, exec string
	trace           trace.TraceID
	start, end      uint64
	host            bool // they are the runtime's
}

// maxClues bounds the spans looked at for ids.
const maxClues = 64

func (c *Collator) cluesOf(top *node) (cl clues) {
	below := make([]*node, 0, 8)
	for n := top.first; n != nil; n = n.next {
		if n.request() && !n.host {
			continue
		}
		if len(below) == 0 {
			cl.host = n.host
			cl.trace, cl.start, cl.end = n.span.TraceID, n.span.Start, n.span.End
		}
		if cl.rpc == nil && !n.host {
			cl.rpc = lostParent(n.span.Name)
		}
		cl.start, cl.end = min(cl.start, n.span.Start), max(cl.end, n.span.End)
		if len(below) < maxClues {
			below = append(below, n)
		}
	}
	for i := 0; i < len(below) && cl.container == ""; i++ {
		cl.container, cl.exec = below[i].span.ContainerID, below[i].span.ExecID
		for n := below[i].first; n != nil && len(below) < maxClues; n = n.next {
			below = append(below, n)
		}
	}
	return cl
}

// placeOfLost infers the place of a span that is missing: by what its children's
// names and ids say, else where its trace has been put before, else by the time.
func (c *Collator) placeOfLost(cl clues) place {
	p := c.spotOfLost(cl).place
	if cl.rpc != nil && c.quietRPC(cl.rpc) && cl.end-cl.start <= uint64(c.opts.Slow) {
		p.drop = Quiet
	}
	if c.calls.isOwn(cl.trace) && p.trace != cl.trace {
		// It stays where it is; only what it is below must be in the same trace.
		p = c.in(cl.trace, c.hostTime(cl.end))
	}
	return p
}

func (c *Collator) spotOfLost(cl clues) spot {
	if c.opts.Mode == Isolated {
		if cl.host {
			return spot{place: place{trace: cl.trace, traced: c.roots.at(clamped(cl.end))}}
		}
		return c.apart(cl.trace)
	}
	start, end := c.hostTime(cl.start), c.hostTime(cl.end)
	if cl.host {
		at, _ := c.spotAt(int64(cl.start), int64(cl.end), closeEnough, cl.container, cl.trace)
		return at
	}
	var m match
	var ok bool
	if cl.rpc != nil {
		exec := cl.exec
		if known, learned := c.execs.get(exec); learned {
			exec = known
		}
		m, ok = c.calls.match(cl.rpc, cl.container, exec, c.clock.moment(period{clamped(cl.start), clamped(cl.end)}), int64(c.opts.Skew))
		ok = ok && c.recorded(&m.call)
	}
	if ok && m.kin > unsaid {
		return c.belowCall(&m.call)
	}
	if g, _ := c.guest.get(cl.trace); g.placed && g.place.drop == "" {
		return spot{place: g.place, parent: g.place.top}
	}
	switch {
	case ok:
		return c.belowCall(&m.call)
	case cl.rpc != nil:
		return c.sandbox(cl.trace, end)
	}
	at, _ := c.spotAt(start, end, int64(c.opts.Skew), cl.container, cl.trace)
	return at
}
