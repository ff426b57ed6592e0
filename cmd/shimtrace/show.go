package main

import (
	"context"
	"strings"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/urfave/cli/v3"
)

// maxTree bounds what is read of one story into memory, in bytes: many times what is
// drawn.
const maxTree = 24 << 20

func showCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "show one sandbox's trace as a waterfall, also while it runs",
		ArgsUsage: "[TRACE | SANDBOX | CONTAINER | POD | NAMESPACE/POD]",
		Description: "Without an argument the latest is shown. Trace, sandbox and container ids may be cut\n" +
			"short. All traces that belong to the sandbox are one picture: links are followed. Spans\n" +
			"of less than 1 % of it, from the fourth level on, are folded into one line, but never\n" +
			"what failed.\n\n" +
			"Examples:\n   shimtrace show\n   shimtrace show default/web-0\n   shimtrace show --all -v 4f2a9c\n" +
			"   shimtrace show --json 4f2a9c > trace.otlp.json",
		Flags: []cli.Flag{
			journalFlag(),
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "draw every span, also short ones deep in the tree"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print ids, attributes and events of every span that is drawn"},
			&cli.IntFlag{Name: "width", HideDefault: true, Usage: "draw `CELLS` wide (default: COLUMNS or the terminal's width)"},
			&cli.BoolFlag{Name: "json", Usage: "print the spans as one OTLP/JSON document (TracesData)"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Len() > 1 {
				return console.UsageError("%s takes one argument, got %q", c.FullName(), c.Args().Slice())
			}
			if c.Int("width") < 0 {
				return console.UsageError("--width %d: a width is not negative", c.Int("width"))
			}
			o := waterfall.Options{Width: h.width(c.Int("width")), Color: h.color(), Verbose: c.Bool("verbose"), All: c.Bool("all")}
			return h.show(h.journalDir(c), c.Args().First(), o, c.Bool("json"))
		},
	}
}

func (h *host) show(dir, query string, o waterfall.Options, asJSON bool) error {
	r := &reading{dir: dir}
	stories, err := r.stories()
	if err != nil {
		return err
	}
	defer r.report(h)
	if len(stories) == 0 {
		return r.empty()
	}
	found := find(stories, query)
	switch {
	case len(found) == 0:
		return console.NothingFound("nothing in the journal %s is called %q; shimtrace list prints what there is", dir, query)
	case len(found) > 1:
		return h.ambiguous(query, found)
	}
	if asJSON {
		return r.writeJSON(h.stdout, found[0])
	}
	tree, err := r.tree(found[0], waterfall.Limits{Bytes: maxTree}, o.Verbose)
	if err != nil {
		return err
	}
	return waterfall.Render(h.stdout, found[0], tree, o)
}

// ambiguous says which stories a query may mean.
func (h *host) ambiguous(query string, found []*waterfall.Story) error {
	const most = 20
	shown := found[max(0, len(found)-most):]
	var list strings.Builder
	if err := h.storyTable(shown).write(&list); err != nil {
		return err
	}
	return console.UsageError("%q may mean %d of them; name one by its trace id:\n%s", query, len(found), strings.TrimRight(list.String(), "\n"))
}
