package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
)

func explainCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say why a sandbox's start took as long as it did, also while it runs",
		ArgsUsage: "[TRACE | SANDBOX | CONTAINER | POD | NAMESPACE/POD]",
		Description: "Without an argument it explains the latest. It says what the start was waiting for from\n" +
			"the caller's request to the container's first instruction, whose time that was, which\n" +
			"time no span accounts for, and the known causes with their evidence and remedy. What is\n" +
			"inferred says so. It reads the journal only.\n\n" +
			"Exit codes: 0 explained (causes or not), 1 failure, 2 wrong usage, 3 nothing found.\n\n" +
			"Examples:\n   shimtrace explain\n   shimtrace explain default/web-0\n" +
			"   shimtrace explain --json 4f2a9c | jq -r '.causes[].sentence'",
		Flags: []cli.Flag{
			journalFlag(),
			&cli.IntFlag{Name: "width", HideDefault: true, Usage: "write lines of `CELLS` (default: COLUMNS or the terminal's width)"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object; durations are in nanoseconds"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Len() > 1 {
				return console.UsageError("%s takes one argument, got %q", c.FullName(), c.Args().Slice())
			}
			width, err := h.askedWidth(c)
			if err != nil {
				return err
			}
			return h.reader(c).Explain(c.Args().First(), width, c.Bool("json"))
		},
	}
}
