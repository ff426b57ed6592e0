package waterfall

import (
	"cmp"
	"slices"
	"strings"
)

// axis maps time to the cells of a line. A long time in which nothing ran, such as the
// hours between a pod's start and its end, shrinks to a few cells (a gap), to leave
// room for the rest.
type axis struct {
	cells  int
	pieces []piece
	Interval
	scaled uint64 // nanoseconds drawn to scale

	gaps  []piece
	inGap []bool // by cell
	blank []rune // an empty line, with a dotted line for each gap
}

// piece is a time range drawn to one scale.
type piece struct {
	Interval
	at, to float64 // in cells
	gap    bool
}

// gapCells is the greatest width of a gap; all gaps together take at most a third of
// the line.
const gapCells = 5

// newAxis returns the axis for the intervals in which something ran.
func newAxis(busy []Interval, cells int) *axis {
	cells = max(cells, 1)
	a := &axis{cells: cells, inGap: make([]bool, cells), blank: []rune(strings.Repeat(" ", cells))}
	if len(busy) == 0 {
		return a
	}
	busy = union(busy)
	a.From, a.To = busy[0].From, busy[len(busy)-1].To
	var active uint64
	for _, b := range busy {
		active += b.To - b.From
	}
	// Short pauses stay to scale.
	short := active / 4
	var scaled float64
	gaps := 0
	for i, b := range busy {
		if i > 0 {
			p := piece{Interval: Interval{busy[i-1].To, b.From}}
			if p.gap = p.To-p.From > short; p.gap {
				gaps++
			} else {
				scaled += float64(p.To - p.From)
			}
			a.pieces = append(a.pieces, p)
		}
		scaled += float64(b.To - b.From)
		a.pieces = append(a.pieces, piece{Interval: b})
	}
	a.scaled = uint64(scaled)
	a.layOut(scaled, gaps)
	return a
}

// layOut assigns cells to every piece.
func (a *axis) layOut(scaled float64, gaps int) {
	perGap := 0.0
	if gaps > 0 {
		perGap = min(gapCells, float64(a.cells)/3/float64(gaps))
	}
	if scaled == 0 && gaps > 0 {
		perGap = float64(a.cells-1) / float64(gaps)
	}
	perNano := 0.0
	if scaled > 0 {
		perNano = (float64(a.cells) - perGap*float64(gaps)) / scaled
	}
	x := 0.0
	for i := range a.pieces {
		p := &a.pieces[i]
		p.at = x
		if p.gap {
			x += perGap
		} else {
			x += float64(p.To-p.From) * perNano
		}
		p.to = x
		if p.gap {
			a.markGap(*p)
		}
	}
}

func (a *axis) markGap(p piece) {
	a.gaps = append(a.gaps, p)
	for i := range a.inGap {
		if mid := float64(i) + 0.5; p.at <= mid && mid < p.to {
			a.inGap[i] = true
		}
	}
	// If gaps are narrower than a cell, one dotted line may stand for several.
	i := min(int((p.at+p.to)/2), a.cells-1)
	if !slices.Contains(a.blank[max(0, i-2):i], '┊') {
		a.blank[i] = '┊'
	}
}

// at returns the position of a moment on the line, from 0 to the number of cells.
func (a *axis) at(t uint64) float64 {
	if len(a.pieces) == 0 || t <= a.From {
		return 0
	}
	i, _ := slices.BinarySearchFunc(a.pieces, t, func(p piece, t uint64) int {
		switch {
		case p.To < t:
			return -1
		case p.From > t:
			return 1
		}
		return 0
	})
	if i == len(a.pieces) {
		return a.pieces[i-1].to
	}
	p := a.pieces[i]
	if p.To == p.From {
		return p.at
	}
	return p.at + (p.to-p.at)*float64(t-p.From)/float64(p.To-p.From)
}

// union merges intervals that touch, in order of time.
func union(all []Interval) []Interval {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Interval) int { return cmp.Compare(a.From, b.From) })
	out := all[:1]
	for _, b := range all[1:] {
		if last := &out[len(out)-1]; b.From <= last.To {
			last.To = max(last.To, b.To)
		} else {
			out = append(out, b)
		}
	}
	return out
}

// busy returns when something ran within the extent; a zero extent is unbounded. Spans
// of the runtime and the agent count only until their parent's end: their life-long
// spans start with the sandbox and last for hours in which nothing happens.
func busy(t *Tree, extent Interval) []Interval {
	var out []Interval
	type item struct {
		node  *Node
		until uint64 // until when its parent counts, 0 without one
	}
	stack := make([]item, 0, len(t.Roots))
	for _, n := range t.Roots {
		stack = append(stack, item{node: n})
	}
	for len(stack) > 0 {
		it := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		until := it.until
		if n := it.node; n.Span != nil && n.start != 0 {
			at := Interval{n.start, n.end}
			if extent.From != 0 {
				at = Interval{max(at.From, extent.From), min(at.To, extent.To)}
			}
			if (n.by == ByAgent || n.by == ByRuntime) && at.From <= it.until {
				at.To = min(at.To, it.until)
			}
			if at.From <= at.To {
				out = append(out, at)
				until = at.To
			}
		}
		for _, c := range it.node.Children {
			stack = append(stack, item{c, until})
		}
	}
	return out
}
