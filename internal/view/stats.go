package view

import (
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/view/stats"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Stats says how long the starts that the filter selects took, by runtime: the whole,
// and the part of each layer on the critical path.
func (r *Reader) Stats(f Filter, o stats.Options, asJSON bool) error {
	defer r.report()
	stories, err := r.stories()
	if err != nil {
		return err
	}
	if stories, err = r.selected(stories, f); err != nil {
		return err
	}
	var starts []stats.Start
	err = r.trees(stories, maxTree, func(s *waterfall.Story, t *waterfall.Tree) {
		starts = append(starts, startOf(s, explain.Explain(s, t, nil)))
	})
	if err != nil {
		return err
	}
	if asJSON {
		return stats.WriteJSON(r.Out, stats.Summarize(starts))
	}
	return stats.Write(r.Out, stats.Summarize(starts), o)
}

func startOf(s *waterfall.Story, e *explain.Explanation) stats.Start {
	start := stats.Start{At: s.Start, Runtime: s.Runtime, Failed: s.Startup == 0 || !e.Succeeded()}
	if start.Failed {
		return start
	}
	start.Phases = append(start.Phases, stats.Phase{Name: "start", Took: e.Start.Length()})
	for _, l := range e.Start.ByLayer() {
		start.Phases = append(start.Phases, stats.Phase{Name: string(l.Layer), Took: l.Self})
	}
	return start
}
