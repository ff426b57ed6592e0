package view

import (
	"strings"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// maxTree bounds the memory for one story, in bytes: many times what is drawn.
const maxTree = 24 << 20

// Show draws the story that a query means, the latest for "", or prints its spans as
// JSON.
func (r *Reader) Show(query string, o waterfall.Options, asJSON bool) error {
	stories, err := r.stories()
	if err != nil {
		return err
	}
	defer r.report()
	if len(stories) == 0 {
		return r.empty()
	}
	found := find(stories, query)
	switch {
	case len(found) == 0:
		return console.NothingFound("nothing in the journal %s is called %q; shimtrace list prints what there is", r.Dir, query)
	case len(found) > 1:
		return ambiguous(query, found)
	}
	if asJSON {
		return r.writeJSON(found[0])
	}
	tree, err := r.tree(found[0], waterfall.Limits{Bytes: maxTree}, o.Verbose)
	if err != nil {
		return err
	}
	return waterfall.Render(r.Out, found[0], tree, o)
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
