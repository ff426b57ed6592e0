package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Writer shows pictures.
type Writer struct {
	Out io.Writer
	// JSON writes each picture as an object in a line.
	JSON bool
	// Screen returns the size of the terminal, which a picture takes whole; nil, or a width
	// of 0: Out is no terminal.
	Screen func() (width, height int)

	drawn bool
}

// Write shows a picture.
func (w *Writer) Write(p, before *Picture) error {
	if w.JSON {
		return json.NewEncoder(w.Out).Encode(p)
	}
	lines := p.Text(before)
	if before == nil && w.Screen == nil {
		_, err := io.WriteString(w.Out, strings.Join(lines, "\n")+"\n")
		return err
	}
	lines = append([]string{p.Time.Local().Format(time.DateTime), ""}, lines...)
	width, height := 0, 0
	if w.Screen != nil {
		width, height = w.Screen()
	}
	if width == 0 {
		_, err := io.WriteString(w.Out, strings.Join(lines, "\n")+"\n\n")
		return err
	}
	_, err := io.WriteString(w.Out, w.redraw(fit(lines, width, height-1)))
	return err
}

// redraw draws over the picture before, in one write, and erases what was there only where
// nothing new comes: so nothing flickers.
func (w *Writer) redraw(lines []string) string {
	clear := ""
	if !w.drawn {
		clear = "\x1b[2J"
	}
	w.drawn = true
	return clear + "\x1b[H" + strings.Join(lines, "\x1b[K\n") + "\x1b[K\n\x1b[J"
}

// fit cuts what a terminal has no room for.
func fit(lines []string, width, height int) []string {
	if height = max(height, 1); len(lines) > height {
		more := len(lines) - height + 1
		lines = append(lines[:height-1:height-1], fmt.Sprintf("… %s more; a higher terminal or --json has them", plural(more, "line", "lines")))
	}
	for i, l := range lines {
		lines[i] = waterfall.Fit(l, width)
	}
	return lines
}

// every is the pause between two pictures.
const every = time.Second

// Watch shows a picture each second until ctx ends or one cannot be written.
func (l *Looker) Watch(ctx context.Context, w *Writer) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var before *Picture
	for {
		p := l.Look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := w.Write(&p, before); err != nil {
			return err
		}
		before = &p
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ScreenOf returns Writer.Screen of a file that may be a terminal.
func ScreenOf(out any) func() (width, height int) {
	return func() (int, int) { return console.Width(out), console.Height(out) }
}
