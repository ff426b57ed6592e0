package view

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/view/html"
	"github.com/shimtrace/shimtrace/internal/view/perfetto"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// maxTree bounds the memory for one story, in bytes: many times what is drawn.
const maxTree = 22 << 20

// What Show, ShowJSON, Page and Perfetto show is the story that a query means among
// those that the filter selects; for "", the latest of them.

// Show draws a story. The filter also selects its spans.
func (r *Reader) Show(query string, f Filter, o waterfall.Options) error {
	return r.whole(query, f, func(s *waterfall.Story, t *waterfall.Tree, e *explain.Explanation) error {
		o.Keep, o.Head, o.Critical = f.spans(s), e.Head(), e.Critical()
		return waterfall.Render(r.Out, s, t, o)
	})
}

// ShowJSON writes a story's spans as one OTLP/JSON document.
func (r *Reader) ShowJSON(query string, f Filter) error {
	defer r.report()
	s, err := r.one(query, f)
	if err != nil {
		return err
	}
	return r.writeJSON(s)
}

// Page writes a story as a page for a browser.
func (r *Reader) Page(query string, f Filter) error {
	return r.whole(query, f, func(s *waterfall.Story, t *waterfall.Tree, e *explain.Explanation) error {
		p := html.Page{Story: s, Tree: t, Head: e.Head(), Critical: e.Critical()}
		if e.Start != nil {
			p.Start = e.Start.Interval
		}
		for _, c := range e.Causes {
			text := append(slices.Clone(c.Evidence), "Why: "+c.Why, "What to do: "+c.Remedy)
			p.Findings = append(p.Findings, html.Finding{Title: c.Sentence, Text: text})
		}
		return html.Write(r.Out, p)
	})
}

// Perfetto writes a story as a Perfetto trace.
func (r *Reader) Perfetto(query string, f Filter) error {
	return r.whole(query, f, func(_ *waterfall.Story, t *waterfall.Tree, e *explain.Explanation) error {
		trace := perfetto.Trace{Tree: t}
		if e.Start != nil {
			for _, g := range e.Start.Path {
				name := g.What
				if g.Node != nil {
					name = g.Node.Title()
				}
				trace.Critical = append(trace.Critical, perfetto.Piece{Interval: g.Interval, Name: name})
			}
		}
		return perfetto.Write(r.Out, trace)
	})
}

// whole calls fn with a story, its tree with details, and what the spans say.
func (r *Reader) whole(query string, f Filter, fn func(*waterfall.Story, *waterfall.Tree, *explain.Explanation) error) error {
	defer r.report()
	s, err := r.one(query, f)
	if err != nil {
		return err
	}
	t, err := r.tree(s, waterfall.Limits{Bytes: maxTree}, true)
	if err != nil {
		return err
	}
	return fn(s, t, explain.Explain(s, t, r.losses))
}

func (r *Reader) one(query string, f Filter) (*waterfall.Story, error) {
	stories, err := r.stories()
	if err != nil {
		return nil, err
	}
	return r.oneOf(stories, query, f)
}

// minTrace is how many digits of its id name a trace that has to do with no sandbox.
const minTrace = 8

func (r *Reader) oneOf(stories []*waterfall.Story, query string, f Filter) (*waterfall.Story, error) {
	if found := find(r.others, query); len(query) >= minTrace && len(found) == 1 && len(find(stories, query)) == 0 {
		return found[0], nil
	}
	f.Min = 0 // of spans
	stories, err := r.selected(stories, f)
	if err != nil {
		return nil, err
	}
	found := find(stories, query)
	if len(found) == 0 {
		found = like(stories, query)
	}
	switch len(found) {
	case 0:
		more := ""
		if r.outside > 0 {
			more = fmt.Sprintf(" (%s of other programs' older traces cannot be named)", console.Spans(r.outside))
		}
		return nil, console.NothingFound("nothing in the journal %s is called %q; shimtrace list prints what there is%s", r.Dir, query, more)
	case 1:
		return found[0], nil
	default:
		return nil, ambiguous(query, found)
	}
}

// ambiguous returns an error that lists the stories a query may mean.
func ambiguous(query string, found []*waterfall.Story) error {
	const most = 20
	shown := found[max(0, len(found)-most):]
	var list strings.Builder
	if err := storyTable(shown).Write(&list); err != nil {
		return err
	}
	return console.UsageError("%q may mean %d of them; name one by its trace id:\n%s", query, len(found), strings.TrimRight(list.String(), "\n"))
}
