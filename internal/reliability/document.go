package reliability

import (
	"slices"
	"strings"
)

// A text is the document: the part before its first area, and the areas in alphabetical
// order.
type text struct {
	head  string
	areas []area
}

// An area is a heading with its rows, in alphabetical order. All rows of an area have
// the same columns: those of loads, or the others.
type area struct {
	name  string
	loads bool
	rows  []string
}

const (
	heading = "## "
	columns = "| what was done | what a pod noticed | what was lost | test |\n|---|---|---|---|\n"
)

// parse reads a document as String writes it.
func parse(s string) text {
	parts := strings.Split(s, "\n"+heading)
	d := text{head: strings.TrimRight(parts[0], "\n")}
	for _, part := range parts[1:] {
		lines := strings.Split(part, "\n")
		a := area{name: lines[0]}
		for _, line := range lines[1:] {
			switch {
			case line == firstLine(loadColumns):
				a.loads = true
			case strings.HasPrefix(line, "| ") && line != firstLine(columns):
				a.rows = append(a.rows, line)
			}
		}
		d.areas = append(d.areas, a)
	}
	return d
}

func firstLine(s string) string { return s[:strings.IndexByte(s, '\n')] }

// row returns the row of f's fault, empty if there is none.
func (d text) row(f Fault) string {
	for _, a := range d.areas {
		if a.name != f.Area {
			continue
		}
		for _, row := range a.rows {
			if strings.HasPrefix(row, f.key()) {
				return row
			}
		}
	}
	return ""
}

// set adds f's row, replacing a former one.
func (d *text) set(f Fault, test string) {
	i := slices.IndexFunc(d.areas, func(a area) bool { return a.name == f.Area })
	if i < 0 {
		i = len(d.areas)
		d.areas = append(d.areas, area{name: f.Area, loads: f.Load != nil})
	}
	rows := slices.DeleteFunc(d.areas[i].rows, func(row string) bool { return strings.HasPrefix(row, f.key()) })
	d.areas[i].rows = append(rows, f.row(test))
}

// String returns the document.
func (d text) String() string {
	var b strings.Builder
	b.WriteString(d.head + "\n")
	slices.SortFunc(d.areas, func(a, b area) int { return strings.Compare(a.name, b.name) })
	for _, a := range d.areas {
		slices.Sort(a.rows)
		header := columns
		if a.loads {
			header = loadColumns
		}
		b.WriteString("\n" + heading + a.name + "\n" + header)
		for _, row := range a.rows {
			b.WriteString(row + "\n")
		}
	}
	return b.String()
}

// key is the beginning of f's row, unique in its area.
func (f Fault) key() string { return "| " + cell(f.Fault) + " | " }

// row returns f's row, with the name of its test.
func (f Fault) row(test string) string {
	name, _, _ := strings.Cut(test, "/")
	cells := cell(f.Pod) + " | " + cell(f.Lost)
	if f.Load != nil {
		cells = f.Load.cells()
	}
	return f.key() + cells + " | `" + name + "` |"
}

// cell returns s as the text of one cell.
func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}
