package waterfall

import "strings"

// row is a node's place among the lines.
type row struct {
	node *Node
	// trail has an element for each level above: whether more follows there, so
	// that its guide goes on. It ends with the node's own level.
	trail []bool
	deep  bool // levels above were left out
}

// maxLevels is how deep the tree is indented; what is deeper is drawn at the
// last level with a mark.
const maxLevels = 12

// flatten returns the tree's lines from top to bottom, at most maxRows, and how
// many spans are left out.
func flatten(t *Tree) (rows []row, more int) {
	type item struct {
		row
		level int
	}
	var stack []item
	push := func(nodes []*Node, above []bool, level int) {
		for i := len(nodes) - 1; i >= 0; i-- {
			next := item{row: row{node: nodes[i]}, level: level}
			if level > 0 {
				next.trail = append(append(next.trail, above...), i < len(nodes)-1)
				if len(next.trail) > maxLevels {
					next.trail, next.deep = next.trail[len(next.trail)-maxLevels:], true
				}
			}
			stack = append(stack, next)
		}
	}
	push(t.Roots, nil, 0)
	for len(stack) > 0 {
		it := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if len(rows) < maxRows {
			rows = append(rows, it.row)
		} else if it.node.Span != nil {
			more++
		}
		push(it.node.Children, it.trail, it.level+1)
	}
	return rows, more
}

// lead returns the guides before the node's name.
func (r row) lead() string {
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
	return guides(r.trail[:last]) + mark
}

// below returns the guides of a line that belongs to the node and comes under
// its name.
func (r row) below() string {
	open := "  "
	if len(r.node.Children) > 0 {
		open = "│ "
	}
	return guides(r.trail) + open
}

func guides(trail []bool) string {
	var b strings.Builder
	for _, goesOn := range trail {
		if goesOn {
			b.WriteString("│ ")
		} else {
			b.WriteString("  ")
		}
	}
	return b.String()
}
