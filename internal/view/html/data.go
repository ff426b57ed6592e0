package html

import (
	"slices"
	"strconv"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// pageData is what the page's script draws. Times are in nanoseconds since Epoch.
type pageData struct {
	Title    string      `json:"title"`
	Facts    [][3]string `json:"facts"` // name, value, class
	Head     []string    `json:"head,omitempty"`
	Findings []finding   `json:"findings,omitempty"`
	Epoch    uint64      `json:"epoch"` // nanoseconds since 1970
	Whole    []int64     `json:"whole,omitempty"`
	Start    []int64     `json:"start,omitempty"`
	Services []string    `json:"services"`
	Traces   []string    `json:"traces"`
	Spans    []span      `json:"spans"`
}

type finding struct {
	Title string   `json:"title"`
	Text  []string `json:"text"`
}

// span is one span. Keys are short, since a page may have ten thousand.
type span struct {
	Parent     *int        `json:"p,omitempty"` // its place among the spans
	Name       string      `json:"n"`
	Title      string      `json:"t,omitempty"` // if not the name
	About      string      `json:"b,omitempty"` // the container
	Start      *int64      `json:"s,omitempty"` // none: unknown
	Duration   int64       `json:"d,omitempty"`
	Service    int         `json:"v,omitempty"`
	Trace      int         `json:"r,omitempty"`
	ID         string      `json:"i,omitempty"`
	Failed     bool        `json:"f,omitempty"`
	Expected   bool        `json:"x,omitempty"`
	Absent     bool        `json:"o,omitempty"`
	Linked     bool        `json:"l,omitempty"`
	Code       string      `json:"c,omitempty"`
	Message    string      `json:"m,omitempty"`
	Attributes [][2]string `json:"a,omitempty"`
	Events     []event     `json:"e,omitempty"`
	Path       [][2]int64  `json:"k,omitempty"` // parts of the critical path
}

// event is [time, name, attributes].
type event [3]any

// numbers gives numbers to texts that recur.
type numbers struct {
	texts []string
	known map[string]int
}

func (n *numbers) of(text string) int {
	i, ok := n.known[text]
	if !ok {
		if n.known == nil {
			n.known = make(map[string]int)
		}
		i = len(n.texts)
		n.known[text] = i
		n.texts = append(n.texts, text)
	}
	return i
}

func newData(p Page) pageData {
	s := p.Story
	whole := s.Interval()
	epoch := whole.From
	if epoch == 0 {
		epoch = earliest(p.Tree)
	}
	d := pageData{Title: title(s), Facts: facts(s, p.Tree), Head: clean(p.Head), Epoch: epoch, Spans: []span{}}
	if whole.From != 0 {
		d.Whole = []int64{0, since(epoch, whole.To)}
	}
	if p.Start.From != 0 {
		d.Start = []int64{since(epoch, p.Start.From), since(epoch, p.Start.To)}
		if d.Whole != nil {
			d.Whole[0], d.Whole[1] = min(d.Whole[0], d.Start[0]), max(d.Whole[1], d.Start[1])
		}
	}
	for _, f := range p.Findings {
		d.Findings = append(d.Findings, finding{waterfall.Clean(f.Title), clean(f.Text)})
	}
	var services, traces numbers
	places := make(map[*waterfall.Node]int)
	for n := range p.Tree.All() {
		places[n] = len(d.Spans)
		j := newSpan(n, s, epoch)
		if up, ok := places[n.Parent()]; ok {
			j.Parent = &up
		}
		j.Service, j.Trace = services.of(waterfall.Clean(n.Service())), traces.of(n.Trace().String())
		for _, i := range p.Critical[n] {
			j.Path = append(j.Path, [2]int64{since(epoch, i.From), since(epoch, i.To)})
		}
		d.Spans = append(d.Spans, j)
	}
	d.Services, d.Traces = services.texts, traces.texts
	return d
}

func newSpan(n *waterfall.Node, s *waterfall.Story, epoch uint64) span {
	j := span{Name: waterfall.Clean(n.Name()), Title: waterfall.Clean(n.Title()), ID: n.ID.String(), Linked: n.Place == waterfall.Linked, Absent: n.Span == nil}
	if j.Title == j.Name {
		j.Title = ""
	}
	if i := n.Interval(); i.From != 0 {
		start := since(epoch, i.From)
		j.Start, j.Duration = &start, int64(i.Length())
	}
	if n.Span == nil {
		return j
	}
	j.About = waterfall.Clean(n.About(s))
	j.Failed, j.Expected = n.Span.Failed, n.Span.Expected
	j.Code, j.Message = waterfall.Clean(n.Span.Code()), waterfall.Clean(n.Span.Message())
	for key, value := range n.Span.Attributes() {
		j.Attributes = append(j.Attributes, [2]string{waterfall.Clean(key), waterfall.Clean(value)})
	}
	for e := range n.Span.DetailedEvents() {
		attributes := [][2]string{}
		for key, value := range e.Attributes() {
			attributes = append(attributes, [2]string{waterfall.Clean(key), waterfall.Clean(value)})
		}
		j.Events = append(j.Events, event{since(epoch, e.At), waterfall.Clean(e.Name), attributes})
	}
	return j
}

// facts are what the page says of the story.
func facts(s *waterfall.Story, t *waterfall.Tree) (all [][3]string) {
	add := func(name, value, class string) {
		if value != "" {
			all = append(all, [3]string{name, waterfall.Clean(value), class})
		}
	}
	add("sandbox", waterfall.ShortID(s.Sandbox), "")
	add("runtime", s.Runtime, "")
	add("namespace", s.Namespace, "")
	add("host", s.Host, "")
	add("trace", s.Trace.String(), "")
	if !s.Start.IsZero() {
		add("started", s.Start.UTC().Format("2006-01-02 15:04:05.000 MST"), "")
	}
	if s.Startup > 0 {
		add("to start", waterfall.Duration(s.Startup), "")
	}
	add("in all", waterfall.Duration(s.Duration()), "")
	add("spans", strconv.Itoa(t.Spans), "")
	if t.Errors > 0 {
		add("errors", strconv.Itoa(t.Errors), "failed")
	}
	if t.Omitted > 0 {
		add("left out", strconv.Itoa(t.Omitted)+" spans beyond the limit", "failed")
	}
	return all
}

func clean(lines []string) []string {
	lines = slices.Clone(lines)
	for i := range lines {
		lines[i] = waterfall.Clean(lines[i])
	}
	return lines
}

func earliest(t *waterfall.Tree) (first uint64) {
	for n := range t.All() {
		if at := n.Start(); at != 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}

// since returns a moment in nanoseconds since the epoch. It is exact for all that a
// script's numbers hold exactly, more than a hundred days.
func since(epoch, at uint64) int64 { return int64(at - epoch) }
