package view

import (
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/view/diff"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Diff compares the starts of the two stories that queries mean, among those that the
// filter selects.
func (r *Reader) Diff(a, b string, f Filter, o diff.Options, asJSON bool) error {
	defer r.report()
	stories, err := r.stories()
	if err != nil {
		return err
	}
	both := make([]*waterfall.Story, 2)
	for i, query := range []string{a, b} {
		if both[i], err = r.oneOf(stories, query, f); err != nil {
			return err
		}
	}
	var sides []diff.Side // in the order of both
	err = r.trees(both, maxTree, func(s *waterfall.Story, t *waterfall.Tree) { sides = append(sides, sideOf(s, t)) })
	if err != nil {
		return err
	}
	d := diff.Compare(sides[0], sides[1])
	if asJSON {
		return d.WriteJSON(r.Out)
	}
	o.Least = f.Min
	return d.Write(r.Out, o)
}

func sideOf(s *waterfall.Story, t *waterfall.Tree) diff.Side {
	side := diff.Side{Story: s, Tree: t}
	e := explain.Explain(s, t, nil)
	switch {
	case e.Start == nil:
		side.Note = "start not recorded"
	case e.Succeeded():
	case e.Start.Target == nil:
		side.Note = "so far"
	default:
		side.Note = "failed to start"
	}
	if e.Start != nil {
		side.Start = e.Start.Interval
		for _, l := range e.Start.ByLayer() {
			side.Layers = append(side.Layers, diff.Layer{Name: string(l.Layer), Self: l.Self})
		}
	}
	return side
}
