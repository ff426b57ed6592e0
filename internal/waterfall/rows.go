package waterfall

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// row is one line of the picture.
type row struct {
	node *Node
	fold *fold // instead of a node: several spans in one line
	// trail says for each level above whether more rows follow there, so that its guide
	// goes on. It ends with the node's own level.
	trail []bool
	deep  bool // levels above were left out
	open  bool // lines follow below it
}

// fold is drawn as one line: the children of a node that are not drawn, with all below
// them.
type fold struct {
	nodes []*Node
	spans int
	sum   time.Duration // of the nodes
}

// Spans shorter than foldShare of the picture are folded below level foldLevel; the
// root is at level 1. Expected failures are folded at any level: polling makes many.
// Other failures are never folded, nor are the nodes above a drawn one.
const (
	foldShare = 0.01
	foldLevel = 3
)

// mark sets for every node whether it is drawn, and the number of spans below it. Nodes
// shorter than the given time are folded.
func (t *Tree) mark(shorter time.Duration, o Options) (deepest int) {
	type item struct {
		node, parent *Node
		level        int
	}
	var order []item
	for _, n := range t.Roots {
		order = append(order, item{n, nil, 1})
	}
	for i := 0; i < len(order); i++ {
		for _, c := range order[i].node.Children {
			order = append(order, item{c, order[i].node, order[i].level + 1})
		}
	}
	for _, it := range order {
		n := it.node
		n.below = 0
		n.drawn = o.draws(n, it.level, shorter)
	}
	for _, it := range slices.Backward(order) { // children before their parents
		if it.node.drawn {
			deepest = max(deepest, it.level)
		}
		if p := it.parent; p != nil {
			p.drawn = p.drawn || it.node.drawn
			p.below += it.node.below + 1
		}
	}
	return deepest
}

// draws reports whether a node has a line of its own, whatever is below it.
func (o Options) draws(n *Node, level int, shorter time.Duration) bool {
	if o.Keep != nil {
		return o.Keep(n)
	}
	return o.All || n.Span == nil || n.Span.Failed || level <= foldLevel && !n.Span.Expected ||
		n.length() >= shorter || longest(o.Critical[n]) >= shorter
}

// longest returns the length of the longest interval.
func longest(all []Interval) (most time.Duration) {
	for _, i := range all {
		most = max(most, i.Length())
	}
	return most
}

func (n *Node) length() time.Duration { return time.Duration(n.end - n.start) }

// split returns a node's drawn children, in their order, and a fold of the others. A
// single span is folded only if the options select spans: its own name takes no more
// room.
func (o Options) split(n *Node) (drawn []*Node, rest *fold) {
	for _, c := range n.Children {
		if c.drawn {
			drawn = append(drawn, c)
			continue
		}
		if rest == nil {
			rest = new(fold)
		}
		rest.nodes = append(rest.nodes, c)
		rest.spans += c.below
		if c.Span != nil {
			rest.spans++
		}
		rest.sum += c.length()
	}
	if rest != nil && rest.spans == 1 && o.Keep == nil {
		return n.Children, nil
	}
	return drawn, rest
}

// names returns the names in the fold, the longest total duration first.
func (f *fold) names() []string {
	sums := make(map[string]time.Duration)
	for _, n := range f.nodes {
		sums[n.Name()] += n.length()
	}
	names := make([]string, 0, len(sums))
	for name := range sums {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(sums[b], sums[a]), strings.Compare(a, b))
	})
	return names
}

// flatten returns the tree's lines from top to bottom, at most maxRows; those deeper
// than levels are drawn at that level. folded is the number of spans in folds, more the
// number of spans without a line.
func flatten(t *Tree, levels int, o Options) (rows []row, folded, more int) {
	var stack []row
	push := func(nodes []*Node, rest *fold, above []bool, root bool) {
		next := func(r row, follows bool) {
			if !root {
				r.trail = append(append(make([]bool, 0, len(above)+1), above...), follows)
				if len(r.trail) > levels {
					r.trail, r.deep = r.trail[len(r.trail)-levels:], true
				}
			}
			stack = append(stack, r)
		}
		if rest != nil {
			next(row{fold: rest}, false)
		}
		for i, n := range slices.Backward(nodes) {
			next(row{node: n}, i < len(nodes)-1 || rest != nil)
		}
	}
	drawn, rest := o.split(&Node{Children: t.Roots})
	push(drawn, rest, nil, true)
	for len(stack) > 0 {
		r := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if r.fold != nil {
			folded += r.fold.spans
		} else {
			drawn, rest := o.split(r.node)
			push(drawn, rest, r.trail, false)
			r.open = len(drawn) > 0 || rest != nil
		}
		switch {
		case len(rows) < maxRows:
			rows = append(rows, r)
		case r.fold != nil:
			folded, more = folded-r.fold.spans, more+r.fold.spans
		case r.node.Span != nil:
			more++
		}
	}
	return rows, folded, more
}

// lead returns the guides before the node's name, step cells per level.
func (r row) lead(step int) string {
	if len(r.trail) == 0 {
		return ""
	}
	last := len(r.trail) - 1
	mark := "└ "
	if r.trail[last] {
		mark = "├ "
	}
	if r.deep {
		mark = "… "
	}
	return guides(r.trail[:last], step) + mark
}

// below returns the guides of a line that belongs to the node and follows it.
func (r row) below(step int) string {
	open := "  "
	if r.open {
		open = "│ "
	}
	return guides(r.trail, step) + open
}

func guides(trail []bool, step int) string {
	var b strings.Builder
	for _, goesOn := range trail {
		guide := "  "
		if goesOn {
			guide = "│ "
		}
		if step == 1 {
			guide = strings.TrimSuffix(guide, " ")
		}
		b.WriteString(guide)
	}
	return b.String()
}
