package waterfall

import (
	"fmt"
	"strings"

	"github.com/shimtrace/shimtrace/internal/names"
)

// label returns a node's name for a reader, and what it is about: the container, unless
// it is the sandbox's own, and the exec, unless a node above names them; and the code
// of an expected failure. A call's package is left out:
// "containerd.task.v3.Task/Create" becomes "Task/Create".
func (r *renderer) label(n *Node) (name, about string) {
	switch n.Place {
	case absent, unstarted:
		return n.Title(), ""
	}
	about = n.About(r.story)
	if s := n.Span; s.Expected && s.text.code != "OK" {
		about = strings.TrimSpace(about + " " + s.text.code)
	}
	return Clean(n.Title()), Clean(about)
}

// About returns what the node's span is about: the container of the story, unless it is
// the sandbox's own, and the exec, unless a node above names them. For another program's
// span it returns the program, unless the node above is of that program too.
func (n *Node) About(of *Story) string {
	if n.by == ByOthers && n.service != "" && (n.parent == nil || n.parent.service != n.service) {
		return n.service
	}
	about, above := "", n.above()
	if id := n.Span.text.container; id != above.container {
		about = of.containerOf(n)
	}
	if n.Span.text.exec != above.exec {
		about += " " + ShortID(n.Span.text.exec)
	}
	return strings.TrimSpace(about)
}

// maxAbove bounds how far up a node looks for the container and exec.
const maxAbove = 32

// above returns the nearest container and exec above the node.
func (n *Node) above() (t spanText) {
	for i, p := 0, n.parent; i < maxAbove && p != nil && p.Span != nil; i, p = i+1, p.parent {
		if t.container == "" {
			t.container = p.Span.text.container
		}
		if t.exec == "" {
			t.exec = p.Span.text.exec
		}
	}
	return t
}

// containerOf returns the name of a node's container, "" for the sandbox's own.
func (s *Story) containerOf(n *Node) string {
	id := n.Span.text.container
	if id == "" || id == s.Sandbox {
		return ""
	}
	if name := s.ContainerName(id); name != "" {
		return name
	}
	if n.Span.text.containerName != "" {
		return n.Span.text.containerName
	}
	return ShortID(id)
}

// Titles of absent spans.
const (
	absentTitle    = "(parent not here: running, lost or not ours)"
	unstartedTitle = "(" + names.SandboxStart + ": not ended, or lost)"
)

func short(name string) string {
	if pkg, method, ok := strings.Cut(name, "/"); ok {
		name = pkg[strings.LastIndexByte(pkg, '.')+1:] + "/" + method
	}
	if name == "" {
		name = "(no name)"
	}
	return name
}

// maxFoldNames bounds the names on a line of folded spans.
const maxFoldNames = 3

// label returns the text of a line of folded spans: their number and names.
func (f *fold) label() string {
	names := f.names()
	more := ""
	if len(names) > maxFoldNames {
		names, more = names[:maxFoldNames], ", …"
	}
	for i := range names {
		names[i] = Clean(short(names[i]))
	}
	return fmt.Sprintf("+%d %s%s", f.spans, strings.Join(names, ", "), more)
}

// labels returns the row's texts: the name and what it is about.
func (r *renderer) labels(row row) (name, about string) {
	if row.fold != nil {
		return row.fold.label(), ""
	}
	return r.label(row.node)
}

// nameRoom is the least number of cells for a name; deeper levels are not indented
// further.
const nameRoom = 18

// foldRoom bounds how much the names of folded spans may widen the column, in cells.
const foldRoom = 28

// indent sets the indentation for a tree that is deepest levels deep: two cells a
// level, or one if a name would get less than half of the column. It returns the number
// of indented levels.
func (r *renderer) indent(deepest int) (levels int) {
	column := int(float64(r.opts.Width) * nameShare)
	r.step = 2
	if r.step*deepest > column/2 {
		r.step = 1
	}
	return max(4, (column-nameRoom)/r.step)
}

// measure returns the width of the name column in cells. Names of folded spans take
// what is left.
func (r *renderer) measure(rows []row) int {
	need := 0
	for _, row := range rows {
		if row.node != nil && row.node.Span == nil {
			continue // it has the whole line
		}
		name, about := r.labels(row)
		cells := Width(row.lead(r.step)) + Width(name)
		if row.fold != nil {
			cells = min(cells, Width(row.lead(r.step))+foldRoom)
		}
		if about != "" {
			cells += 1 + Width(about)
		}
		need = max(need, cells)
	}
	return min(need, int(float64(r.opts.Width)*nameShare))
}

// name returns the name column's text for a row, exactly as wide as the column.
func (r *renderer) name(row row) string {
	lead := Fit(row.lead(r.step), r.nameCells)
	room := r.nameCells - Width(lead)
	name, about := r.labels(row)
	if row.fold != nil {
		name = Fit(name, room)
	} else {
		name = fitTail(name, room)
	}
	room -= Width(name)
	if about != "" && room > 3 {
		about = " " + Fit(about, room-1)
	} else {
		about = ""
	}
	space := strings.Repeat(" ", room-Width(about))
	switch n := row.node; {
	case n == nil, n.Span == nil, n.Place == loose, n.Span.Expected:
		name = r.paint.dim(name)
	case n.Span.Failed:
		name = r.paint.failure(name)
	case len(row.trail) == 0:
		name = r.paint.bold(name)
	}
	return r.paint.dim(lead) + name + r.paint.dim(about) + space
}
