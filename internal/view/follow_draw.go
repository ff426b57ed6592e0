package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// lines writes a line for each span that has not had one.
func (w *follower) lines(s *waterfall.Story, t *waterfall.Tree) error {
	keep := w.filter.spans(s)
	var out strings.Builder
	for n := range t.All() {
		if n.Span == nil || w.said[n] {
			continue
		}
		w.said[n] = true
		if keep == nil || keep(n) {
			out.WriteString(spanLine(n, s))
		}
	}
	_, err := io.WriteString(w.reader.Out, out.String())
	return err
}

// spanLine returns a line about a span: when it began, from the story's beginning on, how long
// it took (blank for a moment), its name, what it is about, its failure.
func spanLine(n *waterfall.Node, s *waterfall.Story) string {
	began, took := "?", ""
	if n.Start() != 0 {
		began = waterfall.Duration(time.Duration(n.Start() - s.Interval().From))
	}
	if d := n.Interval().Length(); d > 0 {
		took = waterfall.Duration(d)
	}
	line := fmt.Sprintf("%8s %8s  %s", began, took, waterfall.Clean(n.Title()))
	if about := n.About(s); about != "" {
		line += " " + waterfall.Clean(about)
	}
	if n.Span.Failed {
		line += "  ✗ " + waterfall.Clean(strings.TrimSpace(n.Span.Code()+" "+n.Span.Message()))
	}
	return line + "\n"
}

// screen draws the picture over the one before, as much of it as fits; the last one
// whole.
func (w *follower) screen(s *waterfall.Story, t *waterfall.Tree, over bool) error {
	e := explain.Explain(s, t, nil)
	o := w.opts.Draw
	o.Keep, o.Head, o.Critical = w.filter.spans(s), e.Head(), e.Critical()
	lines, err := draw(s, t, o)
	if err != nil {
		return err
	}
	if most := w.opts.Height - 1; !over && len(lines) > most {
		o.Head = nil // the spans matter more
		if lines, err = draw(s, t, o); err != nil {
			return err
		}
		lines = fitHeight(lines, most)
	}
	// To the first line; each line to its end; all below.
	_, err = io.WriteString(w.reader.Out, "\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J")
	return err
}

// draw returns the lines of a picture.
func draw(s *waterfall.Story, t *waterfall.Tree, o waterfall.Options) ([]string, error) {
	var picture strings.Builder
	err := waterfall.Render(&picture, s, t, o)
	return strings.Split(strings.TrimRight(picture.String(), "\n"), "\n"), err
}

// fitHeight leaves out lines in the middle: the first, until below the time axis, say what
// it is, and the last are the latest.
func fitHeight(lines []string, height int) []string {
	if len(lines) <= height {
		return lines
	}
	axis := slices.Index(lines, "") + 1
	head := min(axis+1, height/2)
	tail := max(0, height-head-1)
	fitted := slices.Clone(lines[:head])
	fitted = append(fitted, fmt.Sprintf("… %d lines", len(lines)-head-tail))
	return append(fitted, lines[len(lines)-tail:]...)
}
