// Package diff compares two starts: which spans and layers took longer, which are new,
// and which are gone.
//
// It aligns them by structure. Spans of one name below the same parents are one entry of
// a profile, whatever their number, ids and times; entries with the same path are
// compared.
package diff

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Side is one of the two starts.
type Side struct {
	Story *waterfall.Story
	Tree  *waterfall.Tree
	// Start is the time of the start: spans that begin in it are compared. Zero: all are.
	Start waterfall.Interval
	// Layers are the self times of layers on the critical path.
	Layers []Layer
	// Note says what became of a start that did not end well; "" of others.
	Note string
}

// Layer is the self time of a layer.
type Layer struct {
	Name string
	Self time.Duration
}

// Took returns how long the start took.
func (s Side) Took() time.Duration {
	if s.Start.From == 0 {
		return s.Story.Duration()
	}
	return s.Start.Length()
}

// entry is all spans with one path in a start.
type entry struct {
	name     string
	count    int
	took     time.Duration // in sum
	children []*entry      // in the order in which they first began
	by       map[string]*entry
}

// profile returns a start's spans as entries below a nameless one.
func profile(s Side) *entry {
	root := &entry{}
	at := make(map[*waterfall.Node]*entry)
	for n := range s.Tree.All() {
		up := root
		if p := at[n.Parent()]; p != nil {
			up = p
		}
		if n.Span == nil {
			at[n] = up // a stand-in is no part of the structure
			continue
		}
		if s.Start.From != 0 && (n.Start() < s.Start.From || n.Start() >= s.Start.To) {
			continue
		}
		e := up.child(title(n, s.Story))
		e.count++
		e.took += length(n, s.Start)
		at[n] = e
	}
	return root
}

// length returns how long a span lasted, at most until the end of the start.
func length(n *waterfall.Node, start waterfall.Interval) time.Duration {
	i := n.Interval()
	if start.To != 0 {
		i.To = max(i.From, min(i.To, start.To))
	}
	return i.Length()
}

// title returns what a span is called with the name of its container, if that is not the
// sandbox's own: ids differ between starts.
func title(n *waterfall.Node, s *waterfall.Story) string {
	name := n.Title()
	id := n.Span.Container()
	if id == "" || id == s.Sandbox || n.Parent() != nil && n.Parent().Container() == id {
		return name
	}
	if container := s.ContainerName(id); container != "" {
		return name + " " + container
	}
	return name + " (a container)"
}

func (e *entry) child(name string) *entry {
	c := e.by[name]
	if c == nil {
		c = &entry{name: name}
		if e.by == nil {
			e.by = make(map[string]*entry)
		}
		e.by[name] = c
		e.children = append(e.children, c)
	}
	return c
}
