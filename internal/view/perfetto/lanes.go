package perfetto

import (
	"container/heap"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// open holds the spans of a track that still go on, each within the one before.
type open []*waterfall.Node

// settle closes the spans that ended before n began, from the top. It reports whether n lies
// within those that still go on, and is below them in the tree.
func (o *open) settle(n *waterfall.Node, closed func(*waterfall.Node)) bool {
	for len(*o) > 0 {
		last := (*o)[len(*o)-1]
		switch {
		case above(last, n) && n.End() <= last.End():
			return true
		case last.End() > n.Start():
			return false
		}
		closed(last)
		*o = (*o)[:len(*o)-1]
	}
	return true
}

// maxAbove bounds how far up the tree a span's parents are looked for, so that a hostile
// chain of them costs no more.
const maxAbove = 64

// above reports whether a is above n in the tree.
func above(a, n *waterfall.Node) bool {
	up := n.Parent()
	for range maxAbove {
		if up == nil || up == a {
			break
		}
		up = up.Parent()
	}
	return up == a
}

// lane is a track while it is filled.
type lane struct {
	nodes []*waterfall.Node
	open  open
	free  uint64 // when the first of the open spans ends, which is the longest
	index int    // in the heap
}

func (l *lane) add(n *waterfall.Node) {
	l.nodes = append(l.nodes, n)
	l.open = append(l.open, n)
	l.free = l.open[0].End()
}

// arrange divides spans, ordered by known, among tracks on which they lie within each
// other. A span is on the track of the nearest span above it if it can be, and otherwise
// on the one that is free first, or a new one.
func arrange(nodes []*waterfall.Node) (lanes [][]*waterfall.Node) {
	var all []*lane
	var free lanesByEnd
	at := make(map[*waterfall.Node]*lane)
	for _, n := range nodes {
		l := nearest(n, at)
		switch {
		case l != nil && l.open.settle(n, func(*waterfall.Node) {}):
		case len(free) > 0 && free[0].free <= n.Start():
			l = free[0]
			l.open = nil
		default:
			l = &lane{}
			all = append(all, l)
			heap.Push(&free, l)
		}
		l.add(n)
		heap.Fix(&free, l.index)
		at[n] = l
	}
	for _, l := range all {
		lanes = append(lanes, l.nodes)
	}
	return lanes
}

// nearest returns the track of the nearest span above n that has one.
func nearest(n *waterfall.Node, at map[*waterfall.Node]*lane) *lane {
	up := n.Parent()
	for range maxAbove {
		if up == nil || at[up] != nil {
			break
		}
		up = up.Parent()
	}
	return at[up]
}

// lanesByEnd is a heap of tracks; the one that is free first is at the top.
type lanesByEnd []*lane

func (h lanesByEnd) Len() int           { return len(h) }
func (h lanesByEnd) Less(i, j int) bool { return h[i].free < h[j].free }

func (h lanesByEnd) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *lanesByEnd) Push(l any) {
	l.(*lane).index = len(*h)
	*h = append(*h, l.(*lane))
}

func (h *lanesByEnd) Pop() any { panic("tracks stay") }
