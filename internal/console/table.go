package console

import (
	"io"
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

// Write prints the rows.
func (t *Table) Write(w io.Writer) error {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], waterfall.Width(c))
		}
	}
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
