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
	lo, hi uint64
	scaled uint64 // nanoseconds drawn to scale

	gaps  []piece
	inGap []bool // by cell
	blank []rune // an empty line, with a dotted line for each gap
}

// piece is a time range drawn to one scale.
type piece struct {
	lo, hi uint64  // nanoseconds since 1970
	at, to float64 // in cells
	gap    bool
}

// gapCells is the greatest width of a gap; all gaps together take at most a third of
// the line.
const gapCells = 5

// newAxis returns the axis for the intervals in which something ran.
func newAxis(busy []interval, cells int) *axis {
	cells = max(cells, 1)
	a := &axis{cells: cells, inGap: make([]bool, cells), blank: []rune(strings.Repeat(" ", cells))}
	if len(busy) == 0 {
		return a
	}
	busy = union(busy)
	a.lo, a.hi = busy[0].lo, busy[len(busy)-1].hi
	var active uint64
	for _, b := range busy {
		active += b.hi - b.lo
	}
	// Short pauses stay to scale.
	short := active / 4
	var scaled float64
	gaps := 0
	for i, b := range busy {
		if i > 0 {
			p := piece{lo: busy[i-1].hi, hi: b.lo}
			if p.gap = p.hi-p.lo > short; p.gap {
				gaps++
			} else {
				scaled += float64(p.hi - p.lo)
			}
			a.pieces = append(a.pieces, p)
		}
		scaled += float64(b.hi - b.lo)
		a.pieces = append(a.pieces, piece{lo: b.lo, hi: b.hi})
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
			x += float64(p.hi-p.lo) * perNano
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
	if len(a.pieces) == 0 || t <= a.lo {
		return 0
	}
	i, _ := slices.BinarySearchFunc(a.pieces, t, func(p piece, t uint64) int {
		switch {
		case p.hi < t:
			return -1
		case p.lo > t:
			return 1
		}
		return 0
	})
	if i == len(a.pieces) {
		return a.pieces[i-1].to
	}
	p := a.pieces[i]
	if p.hi == p.lo {
		return p.at
	}
	return p.at + (p.to-p.at)*float64(t-p.lo)/float64(p.hi-p.lo)
}

// union merges intervals that touch, in order of time.
func union(all []interval) []interval {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b interval) int { return cmp.Compare(a.lo, b.lo) })
	out := all[:1]
	for _, b := range all[1:] {
		if last := &out[len(out)-1]; b.lo <= last.hi {
			last.hi = max(last.hi, b.hi)
		} else {
			out = append(out, b)
		}
	}
	return out
}

// busy returns when something ran within the extent; a zero extent is unbounded. Spans
// of the runtime and the agent count only until their parent's end: their life-long
// spans start with the sandbox and last for hours in which nothing happens.
func busy(t *Tree, extent interval) []interval {
	var out []interval
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
			at := interval{n.start, n.end}
			if extent.lo != 0 {
				at = interval{max(at.lo, extent.lo), min(at.hi, extent.hi)}
			}
			if (n.by == ByAgent || n.by == ByRuntime) && at.lo <= it.until {
				at.hi = min(at.hi, it.until)
			}
			if at.lo <= at.hi {
				out = append(out, at)
				until = at.hi
			}
		}
		for _, c := range it.node.Children {
			stack = append(stack, item{c, until})
		}
	}
	return out
}
