package diff

import (
	"cmp"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Change is what became of the spans with one path, or of a layer, from A to B.
type Change struct {
	// Name is cleaned. Level is the depth of the path, 1 at the top; 0 of layers.
	Name  string
	Level int
	// A and B are their times in sum, CountA and CountB their numbers.
	A, B           time.Duration
	CountA, CountB int

	below []*Change
	// most is the largest change in it: its own or that of one below.
	most time.Duration
}

// Kind says in a word what became of them.
func (c *Change) Kind() string {
	switch {
	case c.CountA == 0 && c.CountB > 0:
		return "new"
	case c.CountB == 0 && c.CountA > 0:
		return "gone"
	case c.B > c.A:
		return "longer"
	case c.B < c.A:
		return "shorter"
	}
	return "same"
}

// By returns the difference, less than 0 if B took less time.
func (c *Change) By() time.Duration { return c.B - c.A }

// Diff is the comparison of two starts.
type Diff struct {
	A, B   Side
	Layers []*Change // the largest change first
	spans  []*Change // at the top
}

// Compare compares two starts.
func Compare(a, b Side) *Diff {
	return &Diff{A: a, B: b, Layers: layers(a.Layers, b.Layers), spans: compare(profile(a), profile(b), 1)}
}

// compare compares the entries below two, either of which may be nil. The order is B's,
// with what is gone in the place that it had in A.
func compare(a, b *entry, level int) (all []*Change) {
	for _, name := range merged(children(a), children(b)) {
		c := &Change{Name: waterfall.Clean(name), Level: level}
		ea, eb := a.get(name), b.get(name)
		if ea != nil {
			c.A, c.CountA = ea.took, ea.count
		}
		if eb != nil {
			c.B, c.CountB = eb.took, eb.count
		}
		c.below = compare(ea, eb, level+1)
		c.most = c.By().Abs()
		for _, d := range c.below {
			c.most = max(c.most, d.most)
		}
		all = append(all, c)
	}
	return all
}

// merged returns the names of both, in B's order. A name that only A has comes behind the name
// that it was behind in A.
func merged(inA, inB []*entry) (names []string) {
	place := make(map[string]int, len(inB))
	for i, c := range inB {
		place[c.name] = i + 1
	}
	behind := make(map[int][]string)
	at := 0
	for _, c := range inA {
		if i, ok := place[c.name]; ok {
			at = i
			continue
		}
		behind[at] = append(behind[at], c.name)
	}
	names = append(names, behind[0]...)
	for i, c := range inB {
		names = append(append(names, c.name), behind[i+1]...)
	}
	return names
}

func children(e *entry) []*entry {
	if e == nil {
		return nil
	}
	return e.children
}

func (e *entry) get(name string) *entry {
	if e == nil {
		return nil
	}
	return e.by[name]
}

func layers(a, b []Layer) (all []*Change) {
	by := make(map[string]*Change)
	get := func(name string) *Change {
		if by[name] == nil {
			by[name] = &Change{Name: waterfall.Clean(name)}
			all = append(all, by[name])
		}
		return by[name]
	}
	for _, l := range a {
		c := get(l.Name)
		c.A, c.CountA = l.Self, 1
	}
	for _, l := range b {
		c := get(l.Name)
		c.B, c.CountB = l.Self, 1
	}
	slices.SortStableFunc(all, func(a, b *Change) int { return cmp.Compare(b.By().Abs(), a.By().Abs()) })
	return all
}

// Spans returns the changes in the order of the tree, with all above them. It leaves out
// those smaller than least with all below them, and returns their number.
func (d *Diff) Spans(least time.Duration) (shown []*Change, less int) {
	stack := slices.Clone(d.spans)
	slices.Reverse(stack)
	for len(stack) > 0 {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if c.most < least {
			less += c.size()
			continue
		}
		shown = append(shown, c)
		for _, below := range slices.Backward(c.below) {
			stack = append(stack, below)
		}
	}
	return shown, less
}

// size returns the number of changes in it.
func (c *Change) size() int {
	n := 1
	for _, below := range c.below {
		n += below.size()
	}
	return n
}
