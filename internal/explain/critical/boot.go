package critical

import (
	"cmp"
	"slices"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// phases are the phases of VMs' boots. They say more of a time than the span of the
// runtime that waited meanwhile.
type phases []*waterfall.Node

func (s *Start) boot() (out phases) {
	Each(s.Tree.Roots, func(n *waterfall.Node) {
		if n.Maker() == waterfall.ByShim && phaseLayer(n.Span.Name) != "" {
			out = append(out, n)
		}
	})
	slices.SortFunc(out, func(a, b *waterfall.Node) int { return cmp.Compare(a.Start(), b.Start()) })
	return out
}

// phaseLayer returns the layer of a phase of a VM's boot, "" for any other span.
func phaseLayer(name string) Layer {
	switch name {
	case names.VMMStart:
		return VMM
	case names.GuestBoot:
		return GuestKernel
	case names.AgentConnect:
		return Agent
	}
	return ""
}

// split gives the phases those pieces of a runtime's segment in which they lie.
func (p phases) split(g Segment) []Segment {
	if g.Node == nil || g.Node.Maker() != waterfall.ByRuntime && !IsCall(g.Node) {
		return []Segment{g}
	}
	var out []Segment
	for _, n := range p {
		both := g.Intersect(n.Interval())
		if both.Length() == 0 || n == g.Node {
			continue
		}
		if both.From > g.From {
			before := g
			before.To, before.Before = both.From, n
			out = append(out, before)
		}
		out = append(out, Segment{Interval: both, Node: n, Layer: phaseLayer(n.Span.Name), Leaf: true})
		g.From, g.After = both.To, n
	}
	if g.From < g.To {
		out = append(out, g)
	}
	return out
}
