package waterfall

import (
	"slices"
	"strings"
)

// painter adds escape sequences to text, or leaves it alone.
type painter struct {
	on       bool
	services []string // in the order of their colours
}

// serviceColors are the colours of the bars, one for each service. Red is reserved for
// failures.
var serviceColors = []string{"36", "35", "34", "33", "32"}

// newPainter returns a painter that knows the services of the rows, from the top.
func newPainter(on bool, rows []row) painter {
	p := painter{on: on}
	if !on {
		return p
	}
	for _, row := range rows {
		if row.node == nil {
			continue
		}
		s := row.node.service
		if s != "" && !slices.Contains(p.services, s) && len(p.services) < len(serviceColors) {
			p.services = append(p.services, s)
		}
	}
	return p
}

func (p painter) code(code, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p painter) dim(text string) string     { return p.code("2", text) }
func (p painter) bold(text string) string    { return p.code("1", text) }
func (p painter) failure(text string) string { return p.code("31", text) }

// span paints a part of a span's bar.
func (p painter) span(n *Node, text string) string {
	switch {
	case n.Span.Failed:
		return p.failure(text)
	case n.Span.Expected:
		return p.dim(text)
	}
	return p.code(p.color(n.service), text)
}

func (p painter) color(service string) string {
	return serviceColors[max(0, slices.Index(p.services, service))]
}

// legend says which colour is which service, if there are several.
func (p painter) legend() []string {
	if !p.on || len(p.services) < 2 {
		return nil
	}
	var items []string
	for _, s := range p.services {
		items = append(items, p.code(p.color(s), "━━")+" "+Clean(s))
	}
	return items
}

// stripEscapes removes a painter's escape sequences, to measure the text.
func stripEscapes(text string) string {
	if !strings.Contains(text, "\x1b") {
		return text
	}
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(text, "\x1b[")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		_, text, _ = strings.Cut(after, "m")
	}
}
