package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/view/stats"
)

func statsCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "say how long starts took: percentiles by runtime and layer, and over time",
		Description: "For each runtime it takes the starts in the journal: the whole of each, until the\n" +
			"container's first instruction where that is known, and the time of each layer on its\n" +
			"critical path. Percentiles are those of the starts that have the layer. MEDIANS are\n" +
			"those of equal parts of the time, from 0 to the longest.\n\n" +
			"Examples:\n   shimtrace stats\n   shimtrace stats --since 24h --pod 'web-*'\n" +
			"   shimtrace stats --json | jq 'select(.phase == \"start\") | .p95_ns / 1e9'",
		Flags: append([]cli.Flag{
			journalFlag(),
			&cli.IntFlag{Name: "width", HideDefault: true, Usage: "draw `CELLS` wide (default: COLUMNS or the terminal's width)"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line, one for each phase of each runtime"},
		}, filterFlags("starts")...),
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			width, err := h.askedWidth(c)
			if err != nil {
				return err
			}
			f, err := filterOf(c)
			if err != nil {
				return err
			}
			return h.reader(c).Stats(f, stats.Options{Width: width}, c.Bool("json"))
		},
	}
}
