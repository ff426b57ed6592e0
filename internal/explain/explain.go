package explain

import (
	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Explanation is what the spans of one story say about its start.
type Explanation struct {
	// Start has the critical path; nil if the story does not tell of a start.
	Start *critical.Start
}

// Explain explains a story by its tree, which was built with details.
func Explain(story *waterfall.Story, tree *waterfall.Tree) *Explanation {
	return &Explanation{Start: critical.Find(story, tree)}
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
			out[g.Node] = append(out[g.Node], waterfall.Interval{From: g.From, To: g.To})
		}
	}
	return out
}
