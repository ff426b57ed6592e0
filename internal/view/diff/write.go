package diff

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Options say how Write writes.
type Options struct {
	// Width is the terminal's in cells, 0: 80. Color allows escape sequences.
	Width int
	Color bool
	// Least is the smallest change that is shown; 0 is a hundredth of the longer start.
	Least time.Duration
	// Location is the time zone; nil is local time.
	Location *time.Location
}

// Widths in cells.
const (
	minWidth    = 40
	numberCells = 9
	barCells    = 12
	maxIndent   = 12 // levels
)

// maxLines bounds the lines of spans.
const maxLines = 5000

// Write writes a comparison: both starts, layers, spans.
func (d *Diff) Write(w io.Writer, o Options) error {
	if o.Width == 0 {
		o.Width = 80
	}
	if o.Location == nil {
		o.Location = time.Local
	}
	o.Width = max(o.Width, minWidth)
	if o.Least == 0 {
		o.Least = max(d.A.Took(), d.B.Took()) / 100
	}
	spans, less := d.Spans(o.Least)
	more := max(0, len(spans)-maxLines)
	spans = spans[:len(spans)-more]
	t := &table{opts: o}
	t.measure(d.Layers, spans)
	t.side("A", d.A, nil)
	t.side("B", d.B, &d.A)
	if len(d.Layers) > 0 {
		t.head("LAYER")
		for _, c := range d.Layers {
			t.row(c, largest(d.Layers))
		}
	}
	if len(spans) > 0 {
		t.head("SPAN")
	}
	for _, c := range spans {
		t.row(c, largest(spans))
	}
	switch {
	case less > 0 && len(spans) > 0:
		t.line(fmt.Sprintf("%d more differ by less than %s; --min 1ns shows all", less, waterfall.Duration(o.Least)))
	case less > 0:
		t.line("")
		t.line(fmt.Sprintf("No span differs by %s or more; --min 1ns shows all", waterfall.Duration(o.Least)))
	}
	if more > 0 {
		t.line(fmt.Sprintf("%d more are not shown; --json prints them", more))
	}
	_, err := io.WriteString(w, t.out.String())
	return err
}

type table struct {
	opts  Options
	names int // cells
	out   strings.Builder
}

// measure sets the width of the names: as wide as they are, if there is room.
func (t *table) measure(lists ...[]*Change) {
	t.names = len("LAYER")
	for _, list := range lists {
		for _, c := range list {
			t.names = max(t.names, waterfall.Width(c.label()))
		}
	}
	t.names = min(t.names, t.opts.Width-3*numberCells-t.bars())
}

func (t *table) line(text string) {
	t.out.WriteString(strings.TrimRight(waterfall.Fit(text, t.opts.Width), " ") + "\n")
}

// side writes what a start is, and how much longer it took than another.
func (t *table) side(letter string, s Side, than *Side) {
	name := s.Story.Name()
	if name == "" {
		name = waterfall.ShortID(s.Story.Sandbox)
	}
	text := letter + "  " + waterfall.Clean(name)
	if !s.Story.Start.IsZero() {
		text += "  " + s.Story.Start.In(t.opts.Location).Format("2006-01-02 15:04:05")
	}
	text += "  " + waterfall.Clean(s.Story.Runtime) + "  " + waterfall.Duration(s.Took())
	if than != nil {
		text += "  " + signed(s.Took()-than.Took())
	}
	if s.Note != "" {
		text += "  (" + s.Note + ")"
	}
	t.line(text)
}

// bars returns the room for bars, 0 on a narrow terminal.
func (t *table) bars() int {
	if t.opts.Width < 72 {
		return 0
	}
	return barCells + 2
}

func (t *table) head(what string) {
	t.line("")
	t.line(waterfall.Pad(what, t.names) + right("A") + right("B") + right("CHANGE"))
}

func right(text string) string { return waterfall.PadLeft(" "+text, numberCells) }

// label returns the name with its place and how often it occurs.
func (c *Change) label() string {
	name := strings.Repeat("  ", min(max(c.Level-1, 0), maxIndent)) + c.Name
	switch {
	case c.CountA <= 1 && c.CountB <= 1:
		return name
	case c.CountA != c.CountB && c.CountA > 0 && c.CountB > 0:
		return name + fmt.Sprintf(" ×%d, was %d", c.CountB, c.CountA)
	}
	return name + fmt.Sprintf(" ×%d", max(c.CountA, c.CountB))
}

func (t *table) row(c *Change, most time.Duration) {
	a, b := "-", "-"
	if c.CountA > 0 {
		a = waterfall.Duration(c.A)
	}
	if c.CountB > 0 {
		b = waterfall.Duration(c.B)
	}
	change := signed(c.By())
	if kind := c.Kind(); kind == "new" || kind == "gone" {
		change = kind
	}
	text := waterfall.Pad(c.label(), t.names) + right(a) + right(b) + right(change)
	if t.bars() > 0 && most > 0 {
		text += "  " + strings.Repeat("█", int(float64(c.By().Abs())/float64(most)*barCells+0.5))
	}
	text = strings.TrimRight(waterfall.Fit(text, t.opts.Width), " ")
	if t.opts.Color && c.By().Abs() >= t.opts.Least {
		color := "31" // longer
		if c.By() < 0 {
			color = "32"
		}
		text = "\x1b[" + color + "m" + text + "\x1b[0m"
	}
	t.out.WriteString(text + "\n")
}

func signed(d time.Duration) string {
	switch {
	case d > 0:
		return "+" + waterfall.Duration(d)
	case d == 0:
		return "0"
	}
	return waterfall.Duration(d)
}

func largest(all []*Change) (most time.Duration) {
	for _, c := range all {
		most = max(most, c.By().Abs())
	}
	return most
}

// diffJSON is a comparison for scripts; durations are in nanoseconds.
type diffJSON struct {
	A      sideJSON     `json:"a"`
	B      sideJSON     `json:"b"`
	Layers []changeJSON `json:"layers"`
	Spans  []changeJSON `json:"spans"`
}

type sideJSON struct {
	TraceID string        `json:"trace_id"`
	Sandbox string        `json:"sandbox,omitempty"`
	Name    string        `json:"name,omitempty"`
	Runtime string        `json:"runtime,omitempty"`
	Time    time.Time     `json:"time,omitzero"`
	Took    time.Duration `json:"took_ns"`
	Note    string        `json:"note,omitempty"`
}

type changeJSON struct {
	Name   string        `json:"name"`
	Level  int           `json:"level,omitempty"` // spans are in the order of the tree
	Change string        `json:"change"`          // new, gone, longer, shorter, same
	A      time.Duration `json:"a_ns"`
	B      time.Duration `json:"b_ns"`
	CountA int           `json:"a_count"`
	CountB int           `json:"b_count"`
}

// WriteJSON writes the comparison as one JSON object, with all spans.
func (d *Diff) WriteJSON(w io.Writer) error {
	side := func(s Side) sideJSON {
		return sideJSON{s.Story.Trace.String(), s.Story.Sandbox, s.Story.Name(), s.Story.Runtime, s.Story.Start, s.Took(), s.Note}
	}
	change := func(c *Change) changeJSON {
		return changeJSON{c.Name, c.Level, c.Kind(), c.A, c.B, c.CountA, c.CountB}
	}
	out := diffJSON{A: side(d.A), B: side(d.B), Layers: []changeJSON{}, Spans: []changeJSON{}}
	for _, c := range d.Layers {
		out.Layers = append(out.Layers, change(c))
	}
	all, _ := d.Spans(0)
	for _, c := range all {
		out.Spans = append(out.Spans, change(c))
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}
