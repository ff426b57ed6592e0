package console

import (
	"io"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Table is text in columns; columns from RightFrom on are right-aligned.
type Table struct {
	RightFrom int
	rows      [][]string
}

// Add adds a row. Cells are cleaned; an empty one becomes "-".
func (t *Table) Add(cells ...string) {
	for i, c := range cells {
		if cells[i] = waterfall.Fit(waterfall.Clean(c), 40); c == "" {
			cells[i] = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

// Shrink leaves out columns by their titles, one after the other, until the rows are no
// wider than width.
func (t *Table) Shrink(width int, titles ...string) {
	for _, title := range titles {
		used := -2
		for _, cells := range t.widths() {
			used += cells + 2
		}
		i := slices.Index(t.rows[0], title)
		if used <= width || i < 0 {
			return
		}
		for n, row := range t.rows {
			t.rows[n] = slices.Delete(row, i, i+1)
		}
		if i < t.RightFrom {
			t.RightFrom--
		}
	}
}

// widths returns the widths of the columns.
func (t *Table) widths() []int {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], waterfall.Width(c))
		}
	}
	return widths
}

// Write prints the rows.
func (t *Table) Write(w io.Writer) error {
	widths := t.widths()
	var b strings.Builder
	for _, row := range t.rows {
		line := ""
		for i, c := range row {
			if i > 0 {
				line += "  "
			}
			if i >= t.RightFrom {
				line += waterfall.PadLeft(c, widths[i])
			} else {
				line += waterfall.Pad(c, widths[i])
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := w.Write([]byte(b.String()))
	return err
}
