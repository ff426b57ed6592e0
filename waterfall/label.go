package waterfall

import "strings"

// label returns a node's name for a reader, and what it is about: the container
// when that is not the sandbox itself, and the exec. A call's package is left
// out: "containerd.task.v3.Task/Create" reads "Task/Create".
func label(n *Node, sandbox string) (name, about string) {
	switch n.Place {
	case Absent:
		return "(parent not here: running, lost or not ours)", ""
	case Unstarted:
		return "(" + rootName + ": not ended, or lost)", ""
	}
	name = n.Span.GetName()
	if pkg, method, ok := strings.Cut(name, "/"); ok {
		name = pkg[strings.LastIndexByte(pkg, '.')+1:] + "/" + method
	}
	if name == "" {
		name = "(no name)"
	}
	attrs := n.Span.GetAttributes()
	if id := lookup(attrs, attrContainer); id != "" && id != sandbox {
		about = lookup(attrs, attrContainerName)
		if about == "" {
			about = ShortID(id)
		}
	}
	if exec := lookup(attrs, attrExec); exec != "" {
		about = strings.TrimSpace(about + " " + ShortID(exec))
	}
	return Clean(name), Clean(about)
}

// measure returns how many cells the name column takes.
func (r *renderer) measure(rows []row) int {
	need := 0
	for _, row := range rows {
		name, about := label(row.node, r.sandbox)
		cells := Width(row.lead()) + Width(name)
		if about != "" {
			cells += 1 + Width(about)
		}
		need = max(need, cells)
	}
	return min(need, int(float64(r.opts.Width)*nameShare))
}

// name returns the name column's text for a row, exactly as wide as the column.
func (r *renderer) name(row row) string {
	n := row.node
	lead := Fit(row.lead(), r.nameCells)
	room := r.nameCells - Width(lead)
	name, about := label(n, r.sandbox)
	name = Fit(name, room)
	room -= Width(name)
	if about != "" && room > 3 {
		about = " " + Fit(about, room-1)
	} else {
		about = ""
	}
	space := strings.Repeat(" ", room-Width(about))
	switch {
	case n.Span == nil, n.Place == Loose:
		name = r.paint.dim(name)
	case failed(n.Span):
		name = r.paint.failure(name)
	case len(row.trail) == 0:
		name = r.paint.bold(name)
	}
	return r.paint.dim(lead) + name + r.paint.dim(about) + space
}
