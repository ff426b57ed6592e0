// Package perfetto writes a story as a Perfetto trace, for ui.perfetto.dev and
// trace_processor: each service is a process, its spans are slices of tracks, and the
// critical path has a track of its own above them.
//
// Slices of one track must lie within each other. So a span is on its parent's track
// where it can be, and otherwise on another of its service on which nothing goes on:
// whatever is drawn below a slice happened because of it.
package perfetto

import (
	"bufio"
	"cmp"
	"io"
	"slices"
	"strconv"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Trace is what is written.
type Trace struct {
	// Tree is the story's, built with details.
	Tree *waterfall.Tree
	// Critical are the pieces of the critical path, in order of time.
	Critical []Piece
}

// Piece is a stretch of the critical path.
type Piece struct {
	waterfall.Interval
	Name string
}

// Write writes the trace. Spans without a time are left out.
func Write(w io.Writer, t Trace) error {
	e := &encoder{out: bufio.NewWriter(w)}
	nodes := known(t.Tree)
	if len(nodes) > 0 {
		e.clock(nodes[0].Start())
	}
	if len(t.Critical) > 0 {
		track := e.track("critical path", 0, 0)
		for _, p := range t.Critical {
			e.begin(track, p.From, waterfall.Clean(p.Name), "critical", nil)
			e.end(track, p.To)
		}
	}
	for i, service := range services(nodes) {
		writeService(e, i, service)
	}
	if e.err != nil {
		return e.err
	}
	return e.out.Flush()
}

// known returns the spans that have a time, ordered by start. Of those with the same start,
// longer ones and parents come first.
func known(t *waterfall.Tree) (nodes []*waterfall.Node) {
	for n := range t.All() {
		if n.Span != nil && n.Start() != 0 {
			nodes = append(nodes, n)
		}
	}
	slices.SortStableFunc(nodes, func(a, b *waterfall.Node) int {
		return cmp.Or(cmp.Compare(a.Start(), b.Start()), cmp.Compare(b.End(), a.End()))
	})
	return nodes
}

// services divides the spans by service, in the order in which they began.
func services(nodes []*waterfall.Node) (all [][]*waterfall.Node) {
	places := make(map[string]int)
	for _, n := range nodes {
		i, ok := places[n.Service()]
		if !ok {
			i = len(all)
			places[n.Service()] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], n)
	}
	return all
}

func writeService(e *encoder, number int, nodes []*waterfall.Node) {
	name := waterfall.Clean(nodes[0].Service())
	if name == "" {
		name = "(no service)"
	}
	process := e.process(name, number)
	for i, lane := range arrange(nodes) {
		track := e.track(name+" "+strconv.Itoa(i+1), process, i)
		var going open
		end := func(n *waterfall.Node) { e.end(track, n.End()) }
		for _, n := range lane {
			going.settle(n, end)
			e.begin(track, n.Start(), waterfall.Clean(n.Title()), category(n), annotations(n))
			going = append(going, n)
		}
		for _, n := range slices.Backward(going) {
			end(n)
		}
	}
}

func category(n *waterfall.Node) string {
	switch {
	case n.Span.Failed:
		return "failed"
	case n.Span.Expected:
		return "expected"
	}
	return "span"
}

// annotations are what Perfetto shows of a slice.
func annotations(n *waterfall.Node) (all [][2]string) {
	add := func(key, value string) {
		if value != "" {
			all = append(all, [2]string{key, waterfall.Clean(value)})
		}
	}
	add("span", n.Name())
	add("error", n.Span.Message())
	add("code", n.Span.Code())
	add("trace id", n.Trace().String())
	add("span id", n.ID.String())
	for key, value := range n.Span.Attributes() {
		add(waterfall.Clean(key), value)
	}
	for event := range n.Span.DetailedEvents() {
		add("event "+strconv.FormatUint(event.At, 10), event.Name)
	}
	return all
}
