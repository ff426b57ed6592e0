package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Report prints findings: for a person, or an object a line for scripts.
type Report struct {
	Out   io.Writer
	JSON  bool
	Color bool
	// Width is the terminal's in cells; 0: there is none.
	Width int
	// Quiet leaves out what is well.
	Quiet bool

	last   string // the check of the last finding
	counts map[Level]int
}

// Tell prints a finding.
func (r *Report) Tell(f Finding) error {
	if r.counts == nil {
		r.counts = make(map[Level]int)
	}
	r.counts[f.Level]++
	if r.Quiet && f.Level == OK {
		return nil
	}
	if r.JSON {
		return json.NewEncoder(r.Out).Encode(f)
	}
	var b strings.Builder
	if f.Check != r.last {
		r.last = f.Check
		fmt.Fprintf(&b, "%s\n", f.Check)
	}
	r.paragraph(&b, r.mark(f.Level), f.What)
	if f.Where != "" {
		r.paragraph(&b, "      at", f.Where)
	}
	if f.Do != "" {
		r.paragraph(&b, "      do", f.Do)
	}
	_, err := io.WriteString(r.Out, b.String())
	return err
}

// Failed reports whether there was an error, and how often each level was found.
func (r *Report) Failed() (failed bool, summary string) {
	return r.counts[Error] > 0, fmt.Sprintf("%s, %s, %s", count(r.counts[Error], "error"), count(r.counts[Warning], "warning"), count(r.counts[Note], "note"))
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// mark is what a finding begins with.
func (r *Report) mark(l Level) string {
	text := fmt.Sprintf("%8s", map[Level]string{OK: "ok", Note: "note", Warning: "warning", Error: "ERROR"}[l])
	color := map[Level]string{OK: "32", Note: "36", Warning: "33", Error: "31;1"}[l]
	if r.Color {
		return "\x1b[" + color + "m" + text + "\x1b[0m"
	}
	return text
}

const (
	indent   = 10 // cells before the text
	narrow   = 40
	ordinary = 100
)

// paragraph writes text beside a mark, in lines that fit.
func (r *Report) paragraph(b *strings.Builder, mark, text string) {
	width := r.Width
	if width == 0 {
		width = ordinary
	}
	width = max(width, narrow) - indent
	b.WriteString(mark + "  ")
	at := 0
	for i, word := range strings.Fields(waterfall.Clean(text)) {
		n := waterfall.Width(word)
		switch {
		case i == 0:
		case at+1+n > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = 0
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	b.WriteByte('\n')
}
