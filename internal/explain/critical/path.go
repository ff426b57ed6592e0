package critical

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// slack is how much longer than its parent a span may last, if the parent waited for it.
const slack = uint64(5 * time.Millisecond)

// item is a span as a part of the path: within the window, and with the spans that it
// waited for.
type item struct {
	node     *waterfall.Node
	from, to uint64
	parts    []*item
}

func (i *item) holds(o *item) bool { return i.from <= o.from && o.to <= i.to && i != o }

// waitsItself reports whether a span lasts as long as what it waits for, or polls, so
// that nobody's start waits for it.
func waitsItself(n *waterfall.Node) bool {
	name := n.Span.Name
	switch n.Maker() {
	case waterfall.ByShim:
		switch m := Method(n.Span); m {
		case "":
			return false
		case "State", "Stats", "Pids", "Connect", "Ping", "SandboxStatus", "SandboxMetrics":
			return true
		default:
			return kata.Waits(m)
		}
	case waterfall.ByRuntime:
		return kata.IsRuntimeRoot(name) || name == kata.Endpoints
	case waterfall.ByAgent:
		return slices.Contains(kata.LifeLong[:], name) || strings.Contains(name, "wait_process") || name == names.LostAgentSpan
	}
	return strings.HasSuffix(name, ".Wait") || strings.HasSuffix(name, "/Wait")
}

// cutter makes items of nodes.
type cutter struct {
	from   uint64                   // the start's
	target map[*waterfall.Node]bool // what the start's target lies in
	// strays are our own spans that began before their parents: a shim's start is below
	// the call that was the first to tell of its caller.
	strays []*item
}

// all returns the nodes as parts of the whole start.
func (c *cutter) all(nodes []*waterfall.Node, to uint64) []*item {
	out := c.items(nodes, c.from, to)
	return nest(append(out, c.strays...))
}

// items returns the nodes as parts of [from, to]. A node that is no part itself is
// replaced by those below it.
func (c *cutter) items(nodes []*waterfall.Node, from, to uint64) (out []*item) {
	for _, n := range nodes {
		if n.Span != nil && n.Maker() == waterfall.ByShim && n.Start() >= c.from && n.Start()+slack < from && n.End() > n.Start() {
			c.strays = append(c.strays, &item{node: n, from: n.Start(), to: n.End(), parts: nest(ready(c.items(n.Children, n.Start(), n.End())))})
			continue
		}
		lo, hi := max(n.Start(), from), n.End()
		late := hi > to
		if c.target[n] || late && hi-to <= slack {
			hi, late = min(hi, to), false
		}
		dissolve := n.Span == nil || n.Span.Name == names.SandboxStart || n.Span.Name == names.SwitchedOn || n.Start() == 0 || waitsItself(n)
		if dissolve || late {
			if n.Span != nil && IsCall(n) {
				continue // what a call waits for is nothing to the others
			}
			out = append(out, c.items(n.Children, from, to)...)
			continue
		}
		if lo >= hi {
			continue
		}
		it := &item{node: n, from: lo, to: hi}
		it.parts = nest(ready(c.items(n.Children, lo, hi)))
		out = append(out, it)
	}
	return out
}

// ready shortens the span of a relay that is ready later than the inner shim: as long as the
// inner shim is not ready, the relay waits for its address.
func ready(all []*item) []*item {
	for _, inner := range all {
		if inner.node.Name() != names.InnerStart {
			continue
		}
		for _, relay := range all {
			if relay.node.Name() == names.RelaySpawn && relay.from < inner.to && inner.to < relay.to {
				relay.from = inner.to
			}
		}
	}
	return all
}

// rank orders makers from the outside to the inside.
func rank(n *waterfall.Node) int {
	switch {
	case n.Maker() == waterfall.ByAgent:
		return 4
	case n.Maker() == waterfall.ByRuntime:
		return 2
	case n.Maker() == waterfall.ByOthers:
		return 0
	case IsCall(n), strings.HasPrefix(n.Span.Name, "shim "):
		return 1
	}
	return 3 // requests to the agent, processes, the VM's boot
}

// mayHold reports whether inner, if it lies within outer, was a part of its work,
// although it is recorded beside it. The agent's clock is not the host's: its span has
// to be of the same request.
func mayHold(outer, inner *waterfall.Node) bool {
	switch {
	case outer.Maker() == inner.Maker() && (outer.Maker() == waterfall.ByRuntime || outer.Maker() == waterfall.ByAgent):
		// runtime-rs's handler_task_message and handler_task_request; the Go runtime's Run
		// (network_linux.go) and what it runs: callbacks are not given the context.
		return outer.Start() != inner.Start() || outer.End() != inner.End()
	case inner.Span.Name == "pkg.unpack.unpacker.fetchLayer":
		// containerd core/unpack/unpacker.go: the layer waits for its own fetch.
		return outer.Span.Name == "pkg.unpack.unpacker.unpackLayer"
	case inner.Maker() == waterfall.ByAgent:
		return outer.Maker() == waterfall.ByRuntime && outer.Span.Name == inner.Span.Name
	}
	return rank(outer) < rank(inner)
}

// nest moves each item into the smallest other one that holds it.
func nest(all []*item) []*item {
	slices.SortStableFunc(all, func(a, b *item) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to), cmp.Compare(rank(a.node), rank(b.node)))
	})
	var out, open []*item
	grown := make(map[*item]bool)
	for _, it := range all {
		open = slices.DeleteFunc(open, func(o *item) bool { return o.to < it.from })
		var holder *item
		for _, o := range slices.Backward(open) {
			if o.holds(it) && mayHold(o.node, it.node) {
				holder = o
				break
			}
		}
		if holder == nil {
			out = append(out, it)
			open = append(open, it)
			if len(open) > maxOpen {
				open = open[1:]
			}
			continue
		}
		holder.parts = append(holder.parts, it)
		grown[holder] = true
	}
	for it := range grown {
		it.parts = nest(it.parts)
	}
	return out
}

// maxOpen bounds the spans that are compared with each other.
const maxOpen = 64

// Segment is a piece of the critical path: in it, everybody waited for one span, in
// which nothing else that is recorded went on.
type Segment struct {
	waterfall.Interval
	// Node is the span, nil where no span covers the time.
	Node  *waterfall.Node
	Layer Layer
	// Inferred: the layer is not the span's but follows from facts about its maker, or
	// from what lies before and after.
	Inferred bool
	// What says what went on, "" if it is only known which span it was.
	What string
	// Leaf: nothing is recorded below the span.
	Leaf bool
	// After and Before are the spans that end and begin beside a stretch without a
	// span, nil at an end of Node.
	After, Before *waterfall.Node
}

// Where says where the segment lies, for people: between two spans, or in one.
func (g *Segment) Where() string {
	title := func(n *waterfall.Node) string { return waterfall.Clean(n.Title()) }
	switch {
	case g.After != nil && g.Before != nil:
		return "between " + title(g.After) + " and " + title(g.Before)
	case g.Node == nil && g.After != nil:
		return "after " + title(g.After)
	case g.Node == nil && g.Before != nil:
		return "before " + title(g.Before)
	case g.Node == nil:
		return "without any span"
	case g.After != nil:
		return "between " + title(g.After) + " and the end of " + title(g.Node)
	case g.Before != nil:
		return "between the start of " + title(g.Node) + " and " + title(g.Before)
	}
	return "in " + title(g.Node)
}

// walk appends the path through [from, to] of an item's time, the latest first.
func walk(node *waterfall.Node, parts []*item, from, to uint64, out []Segment) []Segment {
	byEnd := slices.Clone(parts)
	slices.SortStableFunc(byEnd, func(a, b *item) int {
		return cmp.Or(cmp.Compare(b.to, a.to), cmp.Compare(b.to-b.from, a.to-a.from))
	})
	at, leaf := to, len(parts) == 0
	var before *waterfall.Node
	for _, p := range byEnd {
		if p.to > at || p.to <= from {
			continue
		}
		if p.to < at {
			out = append(out, Segment{Interval: waterfall.Interval{From: p.to, To: at}, Node: node, After: p.node, Before: before})
		}
		lo := max(p.from, from)
		out = walk(p.node, p.parts, lo, p.to, out)
		at, before = lo, p.node
	}
	if at > from {
		out = append(out, Segment{Interval: waterfall.Interval{From: from, To: at}, Node: node, Before: before, Leaf: leaf})
	}
	return out
}
