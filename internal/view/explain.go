package view

import (
	"encoding/json"
	"io"
	"strings"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Explain says what the start of the story that a query means was waiting for, the
// latest for "": in lines of at most width cells, or as one JSON object.
func (r *Reader) Explain(query string, width int, asJSON bool) error {
	return r.whole(query, Filter{}, func(_ *waterfall.Story, _ *waterfall.Tree, e *explain.Explanation) error {
		if !asJSON {
			return writeWrapped(r.Out, e.Text(), width)
		}
		enc := json.NewEncoder(r.Out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(e)
	})
}

// writeWrapped writes lines, each broken between words to the width, below its own
// beginning. A word that is longer, such as a path, stays whole.
func writeWrapped(w io.Writer, lines []string, width int) error {
	if width <= 0 {
		width = 80
	}
	var out strings.Builder
	for _, line := range lines {
		words := strings.TrimLeft(line, " ")
		indent := strings.Repeat(" ", len(line)-len(words))
		used := 0
		for word := range strings.SplitSeq(words, " ") {
			cells := waterfall.Width(word)
			switch {
			case used == 0:
				out.WriteString(indent)
				used = len(indent)
			case used+1+cells > width:
				out.WriteString("\n" + indent + "  ")
				used = len(indent) + 2
			default:
				out.WriteByte(' ')
				used++
			}
			out.WriteString(word)
			used += cells
		}
		out.WriteByte('\n')
	}
	_, err := io.WriteString(w, out.String())
	return err
}
