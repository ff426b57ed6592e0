package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/view"
	"github.com/shimtrace/shimtrace/internal/view/diff"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

func journalFlag() cli.Flag {
	return &cli.StringFlag{Name: "journal", Usage: "read the journal in `DIR` (default: journal.dir of the configuration)"}
}

// reader returns the reader of the command's journal.
func (h *host) reader(c *cli.Command) *view.Reader {
	dir := c.String("journal")
	if dir == "" {
		dir = h.config("").Journal.Dir
	}
	return &view.Reader{Dir: dir, Out: h.stdout, Warn: h.warn}
}

func listCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:    "list",
		Aliases: []string{"ls"},
		Usage:   "list the sandboxes that were traced on this host, the newest last",
		Description: "Each line is one run of a sandbox (a pod, or a container outside of pods), with all\n" +
			"traces that its spans are in. STARTUP is the time until its first task ran. A terminal\n" +
			"that is too narrow for all columns has fewer.\n\n" +
			"Examples:\n   shimtrace list\n   shimtrace list --pod 'web-*' --since 2h --min 3s\n   shimtrace list --limit 0 --json | jq 'select(.errors > 0)'",
		Flags: append([]cli.Flag{
			journalFlag(),
			&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "print the last `N`; 0: all"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line"},
		}, filterFlags("starts")...),
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			limit := c.Int("limit")
			if limit < 0 {
				return console.UsageError("--limit %d: a number of lines is not negative", limit)
			}
			f, err := filterOf(c)
			if err != nil {
				return err
			}
			return h.reader(c).List(f, limit, h.width(0), c.Bool("json"))
		},
	}
}

func showCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "show one sandbox's trace as a waterfall, also while it runs",
		ArgsUsage: "[TRACE | SANDBOX | CONTAINER | POD | NAMESPACE/POD]",
		Description: "Without an argument it shows the latest. Ids and names may be shortened. All traces of\n" +
			"the sandbox are in one picture, including linked ones. Spans shorter than 1 % of it are\n" +
			"folded into one line from the fourth level on, failures never. The two lines above the\n" +
			"picture say what its start waited for; the same is drawn as blocks (█). See\n" +
			"docs/looking.md.\n\n" +
			"Examples:\n   shimtrace show\n   shimtrace show default/web-0\n   shimtrace show --all -v 4f2a9c\n" +
			"   shimtrace show --errors --since 2h\n" +
			"   shimtrace show --html web.html default/web-0\n" +
			"   shimtrace show --follow\n" +
			"   shimtrace show --diff default/web-0 default/web-1\n" +
			"   shimtrace show --perfetto web.pftrace default/web-0\n" +
			"   shimtrace show --json 4f2a9c > trace.otlp.json",
		Flags: append([]cli.Flag{
			journalFlag(),
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "draw every span, also short ones deep in the tree"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print ids, attributes and events of every drawn span"},
			&cli.IntFlag{Name: "width", HideDefault: true, Usage: "draw `CELLS` wide (default: COLUMNS or the terminal's width)"},
			&cli.StringFlag{Name: "html", Usage: "write a page for a browser to `FILE`, with everything in it; -: to stdout"},
			&cli.BoolFlag{Name: "open", Usage: "show the page in the browser here"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "show spans as they arrive, of the next sandbox that starts, or the named one, until it is deleted"},
			&cli.BoolFlag{Name: "diff", Usage: "compare the starts of two sandboxes, `A B`: what took longer, is new, is gone"},
			&cli.StringFlag{Name: "perfetto", Usage: "write a trace for ui.perfetto.dev to `FILE`; -: to stdout"},
			&cli.BoolFlag{Name: "json", Usage: "print the spans as one OTLP/JSON document (TracesData)"},
		}, filterFlags("spans")...),
		Action: func(ctx context.Context, c *cli.Command) error {
			f, err := filterOf(c)
			if err != nil {
				return err
			}
			if c.Bool("diff") {
				return h.diff(c, f)
			}
			if c.Args().Len() > 1 {
				return console.UsageError("%s takes one argument, got %q", c.FullName(), c.Args().Slice())
			}
			return h.show(ctx, c, c.Args().First(), f)
		},
	}
}

// show shows a story in the form that the flags name.
func (h *host) show(ctx context.Context, c *cli.Command, query string, f view.Filter) error {
	if err := atMostOne(c, "follow", "html", "perfetto", "json"); err != nil {
		return err
	}
	if err := atMostOne(c, "follow", "open", "perfetto", "json"); err != nil {
		return err
	}
	r := h.reader(c)
	switch {
	case c.String("html") != "" || c.Bool("open"):
		return h.page(c, r, query, f)
	case c.String("perfetto") != "":
		return h.toFile(c.String("perfetto"), r, func() error { return r.Perfetto(query, f) })
	case c.Bool("json"):
		return r.ShowJSON(query, f)
	}
	o, err := h.drawing(c)
	if err != nil {
		return err
	}
	if c.Bool("follow") {
		return r.Follow(ctx, query, f, view.FollowOptions{Draw: o, Height: console.Height(h.stdout)})
	}
	return r.Show(query, f, o)
}

// diff compares the starts of the two sandboxes that the arguments name.
func (h *host) diff(c *cli.Command, f view.Filter) error {
	if c.Args().Len() != 2 {
		return console.UsageError("--diff takes two sandboxes, got %q", c.Args().Slice())
	}
	for _, other := range []string{"html", "open", "perfetto", "follow"} {
		if err := atMostOne(c, "diff", other); err != nil {
			return err
		}
	}
	o, err := h.drawing(c)
	if err != nil {
		return err
	}
	return h.reader(c).Diff(c.Args().Get(0), c.Args().Get(1), f, diff.Options{Width: o.Width, Color: o.Color}, c.Bool("json"))
}

// drawing returns how to draw in the terminal.
func (h *host) drawing(c *cli.Command) (waterfall.Options, error) {
	width, err := h.askedWidth(c)
	return waterfall.Options{Width: width, Color: h.color(), Verbose: c.Bool("verbose"), All: c.Bool("all")}, err
}

// atMostOne returns an error if more than one of the flags is set.
func atMostOne(c *cli.Command, flags ...string) error {
	set := ""
	for _, f := range flags {
		switch {
		case !c.IsSet(f):
		case set != "":
			return console.UsageError("--%s and --%s are two forms of the same: choose one", set, f)
		default:
			set = f
		}
	}
	return nil
}
