package waterfall

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// Options say how Render draws. The zero value is a plain picture of 80 cells in local
// time.
type Options struct {
	// Width is the terminal's in cells: 0 means 80, and at least 40 is used.
	Width int
	// Color allows escape sequences; without it the output has none.
	Color bool
	// Verbose prints the attributes, events and whole messages of every drawn span, if
	// the tree was built with details.
	Verbose bool
	// All draws every span on its own line; without it, short ones deep in the tree are
	// folded.
	All bool
	// Keep selects the spans that are drawn, with those above them; the others are
	// folded, whatever their length. Nil makes no selection.
	Keep func(*Node) bool
	// Head are lines between the header and the picture. They are cleaned and wrapped.
	Head []string
	// Critical are, for nodes on the critical path, the times at which all else waited
	// for the node itself. They are drawn as blocks. A node for which all else waited
	// long is not folded.
	Critical map[*Node][]Interval
	// Location is the time zone of absolute times; nil is local time.
	Location *time.Location
}

// maxRows bounds the rows drawn; the rest is counted below. maxShown bounds a span's
// events, and the attributes of each.
const (
	maxRows  = 5000
	maxShown = 128
)

// Widths in cells. The name column is as wide as the names, up to nameShare of the
// line; bars get the rest.
const (
	defaultWidth  = 80
	minWidth      = 40
	nameShare     = 0.45
	durationCells = 7
)

// Render draws the story's header and its tree as a waterfall: per span one line with
// its place in the tree, its duration, and a bar on a common time axis.
func Render(w io.Writer, s *Story, t *Tree, o Options) error {
	if o.Width == 0 {
		o.Width = defaultWidth
	}
	o.Width = max(o.Width, minWidth)
	if o.Location == nil {
		o.Location = time.Local
	}
	r := &renderer{out: bufio.NewWriter(w), opts: o, story: s, extent: s.Interval()}
	intervals := busy(t, r.extent)
	deepest := t.mark(shortest(intervals), o)
	rows, folded, more := flatten(t, r.indent(deepest), o)
	r.paint = newPainter(o.Color, rows)
	r.nameCells = r.measure(rows)
	r.axis = newAxis(intervals, o.Width-r.nameCells-durationCells-2)
	r.header(s, t)
	r.head()
	r.line("")
	r.scale()
	for _, row := range rows {
		r.row(row)
	}
	r.footer(t, folded, more)
	return r.out.Flush()
}

// shortest returns the least duration of a span that is not folded.
func shortest(busy []Interval) time.Duration {
	return time.Duration(foldShare * float64(newAxis(busy, 1).scaled))
}

type renderer struct {
	out       *bufio.Writer
	opts      Options
	story     *Story
	paint     painter
	nameCells int
	step      int // cells per level
	axis      *axis
	extent    Interval // of the story
	clipped   bool     // a span begins or ends outside the picture
	critical  bool     // a bar has a part of the critical path
}

func (r *renderer) line(text string) {
	r.out.WriteString(strings.TrimRight(text, " "))
	r.out.WriteByte('\n')
}

// header prints the sandbox, its traces and its times.
func (r *renderer) header(s *Story, t *Tree) {
	field := func(name, value string) string {
		if value == "" {
			return ""
		}
		return r.paint.dim(name) + " " + Clean(value)
	}
	containers := ""
	if name := s.Name(); s.Pod == "" && name != "" {
		containers = name
	}
	r.flow(field("sandbox", ShortID(s.Sandbox)), field("pod", podName(s)), field("container", containers),
		field("runtime", s.Runtime), field("namespace", s.Namespace), field("host", s.Host))

	joined := ""
	if n := len(s.Traces) - 1; n > 0 {
		joined = "and " + count(n, "linked trace")
	}
	r.flow(field("trace", s.Trace.String()), joined)

	started, startup := "", ""
	if !s.Start.IsZero() {
		started = field("started", s.Start.In(r.opts.Location).Format("2006-01-02 15:04:05.000 MST"))
	}
	if s.Startup > 0 {
		startup = r.paint.bold(Duration(s.Startup)) + " " + r.paint.dim("to start")
	}
	errors := ""
	if t.Errors > 0 {
		errors = r.paint.failure(count(t.Errors, "error"))
	}
	r.flow(started, startup, Duration(s.Duration())+" "+r.paint.dim("in all"), count(t.Spans, "span"), errors)
}

// head prints the lines of Options.Head.
func (r *renderer) head() {
	const most = 6
	for _, text := range r.opts.Head {
		for _, line := range wrapText(Clean(text), r.opts.Width, most) {
			r.line(line)
		}
	}
}

func podName(s *Story) string {
	if s.Pod == "" {
		return ""
	}
	return s.Name()
}

// flow prints items with space between, on as many lines as needed.
func (r *renderer) flow(items ...string) {
	line, used := "", 0
	for _, item := range items {
		if item == "" {
			continue
		}
		cells := Width(stripEscapes(item))
		if cells > r.opts.Width {
			item = Fit(stripEscapes(item), r.opts.Width)
			cells = r.opts.Width
		}
		if used > 0 && used+3+cells > r.opts.Width {
			r.line(line)
			line, used = "", 0
		}
		if used > 0 {
			line, used = line+"   ", used+3
		}
		line, used = line+item, used+cells
	}
	if used > 0 {
		r.line(line)
	}
}

// footer prints the legend and notes.
func (r *renderer) footer(t *Tree, folded, more int) {
	var notes []string
	if len(r.axis.gaps) > 0 {
		notes = append(notes, "┊ nothing ran: this time is cut short")
	}
	if r.critical {
		notes = append(notes, "█ critical path: all else waited for this")
	}
	if r.clipped {
		notes = append(notes, "◂ ▸ begins before or ends after what is shown")
	}
	switch {
	case folded > 0 && r.opts.Keep != nil:
		notes = append(notes, fmt.Sprintf("+ %s folded that the filters leave out", count(folded, "span")))
	case folded > 0:
		notes = append(notes, fmt.Sprintf("+ %s of less than 1 %% folded; --all draws them", count(folded, "span")))
	}
	if more > 0 {
		notes = append(notes, fmt.Sprintf("%s more not drawn; --json prints them", count(more, "span")))
	}
	if t.Omitted > 0 {
		notes = append(notes, fmt.Sprintf("%s beyond the limit left out", count(t.Omitted, "span")))
	}
	legend := r.paint.legend()
	if legend == nil && notes == nil {
		return
	}
	r.line("")
	r.flow(legend...)
	for _, n := range notes {
		r.line(r.paint.dim(Fit(n, r.opts.Width)))
	}
}

// row prints a line for a span, with its failure and, with Verbose, the rest; or for a
// fold.
func (r *renderer) row(row row) {
	if n := row.node; n != nil && n.Span == nil { // it has no time to draw
		lead := row.lead(r.step)
		r.line(r.paint.dim(lead + Fit(n.Title(), r.opts.Width-Width(lead))))
		return
	}
	name := r.name(row)
	if row.fold != nil {
		r.line(name + " " + r.paint.dim(duration(row.fold.sum)) + " " + r.foldedBar(row.fold))
		return
	}
	n := row.node
	length := duration(n.length())
	switch {
	case n.Span.Failed:
		length = r.paint.failure(length)
	case n.Span.Expected:
		length = r.paint.dim(length)
	}
	r.line(name + " " + length + " " + r.bar(n))
	if n.Span.Failed {
		r.trouble(row)
	}
	if r.opts.Verbose {
		r.details(row)
	}
}

// duration returns a length of time for its column, blank for a moment.
func duration(d time.Duration) string {
	text := ""
	if d > 0 {
		text = Duration(d)
	}
	return PadLeft(text, durationCells)
}

// trouble prints a failed span's code and message: the first line, or with Verbose all.
func (r *renderer) trouble(row row) {
	code, message := row.node.Span.text.code, row.node.Span.text.message
	if first, _, more := strings.Cut(message, "\n"); more && !r.opts.Verbose {
		message = first + "…"
	}
	text := "failed"
	switch {
	case code != "" && message != "" && !strings.HasPrefix(message, code):
		text = code + ": " + message
	case message != "":
		text = message
	case code != "":
		text = code
	}
	r.note(row, "✗ ", text, r.paint.failure)
}

// details prints a span's ids, attributes and events.
func (r *renderer) details(row row) {
	n := row.node
	ids := "span " + n.key.span.String()
	if n.Place == Linked {
		ids += " of trace " + n.key.trace.String()
	}
	r.note(row, "  ", ids, r.paint.dim)
	r.attributes(row, "  ", n.Span.details, otlpwire.SpanAttributes)
	events := 0
	for e := range n.Span.DetailedEvents() {
		if events++; events > maxShown {
			break
		}
		r.event(row, e)
	}
}

func (r *renderer) event(row row, e Event) {
	when := ""
	if start := row.node.start; start != 0 && e.At >= start {
		when = " +" + Duration(time.Duration(e.At-start))
	}
	r.note(row, "◆ ", e.Name+when, r.paint.dim)
	r.attributes(row, "    ", e.msg, otlpwire.EventAttributes)
}

// attributes prints the attributes in field num of a message.
func (r *renderer) attributes(row row, indent string, msg []byte, num protowire.Number) {
	n := 0
	for key, value := range attributes(msg, num) {
		if n++; n > maxShown {
			r.note(row, indent, "…", r.paint.dim)
			return
		}
		r.note(row, indent, string(key[:min(len(key), maxText)])+" = "+valueText(value, 0), r.paint.dim)
	}
}

// note prints text below a span, aligned with its name.
func (r *renderer) note(row row, mark, text string, style func(string) string) {
	const maxLines = 12
	guide := row.below(r.step)
	limit := 4
	if r.opts.Verbose {
		limit = maxLines
	}
	cells := max(10, r.opts.Width-Width(guide)-Width(mark))
	for text := range strings.Lines(text) {
		for _, line := range wrapText(Clean(strings.TrimRight(text, "\n")), cells, limit) {
			if limit--; limit < 0 {
				return
			}
			r.line(r.paint.dim(guide) + style(mark+line))
			mark = strings.Repeat(" ", Width(mark))
		}
	}
}

// count prints "1 span", "2 spans".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
