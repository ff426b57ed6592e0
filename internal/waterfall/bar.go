package waterfall

import (
	"math"
	"slices"
	"strings"
	"time"
)

// bar draws a node on the axis, in half cells: its length, its events as diamonds, and
// the axis's gaps as dotted lines. Arrows mark ends outside the picture.
func (r *renderer) bar(n *Node) string {
	cells := slices.Clone(r.axis.blank)
	ours := make([]bool, len(cells)) // cells that carry the span's colour
	if n.Span != nil && n.start != 0 {
		r.draw(cells, ours, n.Interval(), '━', '╸', '╺')
		for _, i := range r.opts.Critical[n] {
			r.draw(cells, ours, i, '█', '▌', '▐')
			r.critical = true
		}
		for _, e := range n.Span.events {
			if e.at >= r.axis.From && e.at <= r.axis.To {
				i := min(int(r.axis.at(e.at)), len(cells)-1)
				cells[i], ours[i] = '◆', true
			}
		}
		r.arrows(cells, ours, n)
	}
	return r.colored(cells, ours, func(text string) string { return r.paint.span(n, text) })
}

// foldedBar draws folded spans as one thin line.
func (r *renderer) foldedBar(f *fold) string {
	cells := slices.Clone(r.axis.blank)
	ours := make([]bool, len(cells))
	for _, n := range f.nodes {
		if n.start != 0 {
			r.draw(cells, ours, n.Interval(), '─', '╴', '╶')
		}
	}
	return r.colored(cells, ours, r.paint.dim)
}

// draw draws a length of time with the given runes for a cell and its halves.
func (r *renderer) draw(cells []rune, ours []bool, at Interval, whole, leftHalf, rightHalf rune) {
	from, to := r.halves(at)
	for i := from / 2; i < (to+1)/2; i++ {
		left, right := from <= 2*i, 2*i+1 < to
		sign := whole
		switch {
		case left && right && r.axis.inGap[i]:
			sign = '┅'
		case !right:
			sign = leftHalf
		case !left:
			sign = rightHalf
		}
		if ours[i] && cells[i] != sign {
			sign = whole // two spans meet
		}
		cells[i], ours[i] = sign, true
	}
}

// arrows marks a node that begins before or ends after the picture.
func (r *renderer) arrows(cells []rune, ours []bool, n *Node) {
	from, to := r.halves(n.Interval())
	mark := func(i int, sign rune) { cells[i], ours[i], r.clipped = sign, true, true }
	bounded, s := r.extent.From != 0, n.Span
	if bounded && n.start < r.extent.From || s.Clipped && s.first.From != 0 && s.first.From < n.start {
		mark(from/2, '◂')
	}
	if bounded && n.end > r.extent.To || s.Clipped && s.first.To > n.end {
		mark((to-1)/2, '▸')
	}
}

// colored returns a line of cells, painting those of the span.
func (r *renderer) colored(cells []rune, ours []bool, paint func(string) string) string {
	var b strings.Builder
	for i := 0; i < len(cells); {
		j := i
		for j < len(cells) && ours[j] == ours[i] {
			j++
		}
		text := string(cells[i:j])
		switch {
		case ours[i]:
			text = paint(text)
		case strings.ContainsRune(text, '┊'):
			text = r.paint.dim(text)
		}
		b.WriteString(text)
		i = j
	}
	return b.String()
}

// halves returns the first half cell of a time and the one after its last; it has at
// least one.
func (r *renderer) halves(i Interval) (from, to int) {
	end := 2 * r.axis.cells
	from = min(int(math.Floor(2*r.axis.at(i.From)+1e-6)), end-1)
	to = min(int(math.Ceil(2*r.axis.at(i.To)-1e-6)), end)
	return from, max(to, from+1)
}

// scale prints the axis: 0, round times up to the first gap, the lengths of the gaps in
// angle brackets, and the end.
func (r *renderer) scale() {
	a := r.axis
	if len(a.pieces) == 0 {
		return
	}
	cells := slices.Clone(a.blank)
	put := func(at int, text string) bool {
		label := []rune(text)
		if at < 0 || at+len(label) > len(cells) {
			return false
		}
		// One space on each side keeps labels apart.
		for i := max(0, at-1); i < min(len(cells), at+len(label)+1); i++ {
			if cells[i] != ' ' && cells[i] != '┊' {
				return false
			}
		}
		copy(cells[at:], label)
		return true
	}
	put(0, "0")
	total := Duration(time.Duration(a.To - a.From))
	put(len(cells)-len([]rune(total)), total)
	for _, g := range a.gaps {
		text := "‹" + Duration(time.Duration(g.To-g.From)) + "›"
		put(int((g.at+g.to)/2)-len([]rune(text))/2, text)
	}
	if step := a.step(); step > 0 {
		for t := step; t < a.firstGap()-a.From; t += step {
			put(int(a.at(a.From+t)), "╷"+Duration(time.Duration(t)))
		}
	}
	r.line(strings.Repeat(" ", r.nameCells+durationCells+2) + r.paint.dim(string(cells)))
}

// step returns a round number of nanoseconds that takes at least 12 cells, or 0 if
// there is no time to scale.
func (a *axis) step() uint64 {
	first := a.firstGap() - a.From
	width := a.at(a.firstGap())
	if first == 0 || width < 1 {
		return 0
	}
	least := float64(first) / width * 12
	for unit := 1.0; unit < 1e18; unit *= 10 {
		for _, k := range []float64{1, 2, 5} {
			if k*unit >= least {
				return uint64(k * unit)
			}
		}
	}
	return 0
}

// firstGap returns the beginning of the first gap, or the end.
func (a *axis) firstGap() uint64 {
	for _, p := range a.pieces {
		if p.gap {
			return p.From
		}
	}
	return a.To
}
