package explain

import (
	"github.com/shimtrace/shimtrace/internal/explain/causes"
	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Explanation is what the spans of one story say about its start.
type Explanation struct {
	Story *waterfall.Story
	// Start has the critical path; nil if the story does not tell of a start, and then
	// the rest is empty.
	Start *critical.Start
	// Causes are the known causes, the costliest first.
	Causes   []causes.Cause
	Coverage Coverage
}

// Explain explains a story by its tree, which was built with details. losses are what the
// journal counted as lost.
func Explain(story *waterfall.Story, tree *waterfall.Tree, losses []causes.Loss) *Explanation {
	e := &Explanation{Story: story, Start: critical.Find(story, tree)}
	if e.Start != nil {
		e.Causes = causes.Find(e.Start, losses)
		e.Coverage = cover(e.Start, e.Causes)
	}
	return e
}

// Succeeded reports whether the start is over, and went well.
func (e *Explanation) Succeeded() bool {
	switch {
	case e.Start == nil:
		return false
	case e.Start.Target == nil: // its call may have been lost
		return e.Story.Startup > 0
	}
	return !e.Start.Target.Span.Failed
}

// Critical returns, for each span, the stretches of the critical path in which nothing
// recorded below the span went on.
func (e *Explanation) Critical() map[*waterfall.Node][]waterfall.Interval {
	if e.Start == nil {
		return nil
	}
	out := make(map[*waterfall.Node][]waterfall.Interval)
	for _, g := range e.Start.Path {
		if g.Node != nil {
			out[g.Node] = append(out[g.Node], g.Interval)
		}
	}
	return out
}
