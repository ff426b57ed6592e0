package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/status"
)

func statusCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "say what shimtrace does on this host: relays, guard, collecting process, journals",
		ArgsUsage: "[SANDBOX...]",
		Description: "Names are as for shimtrace on; without one, all sandboxes are listed. With --watch it is\n" +
			"drawn anew each second, with rates. A number that is not known is \"-\": the relay is older\n" +
			"than it, or has not answered in time.\n\n" +
			"Examples:\n   shimtrace status\n   shimtrace status --watch\n" +
			"   shimtrace status --json | jq '.relays[] | select(.on)'",
		Flags: append(switchFlags(),
			&cli.BoolFlag{Name: "watch", Usage: "go on, with a picture each second, until Ctrl-C"},
			&cli.DurationFlag{Name: "wait", Value: time.Second, Usage: "wait no longer than `DURATION` for who does not answer"},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			wait := c.Duration("wait")
			if wait <= 0 {
				return console.UsageError("--wait %s: a time to wait is positive", wait)
			}
			journals, r := config.Journals(h.getenv)
			_ = h.mistakes(r)
			dir := c.String("state-dir")
			if dir == "" {
				dir = journals[0].Relay.StateDir
			}
			l := &status.Looker{StateDir: dir, Journals: journals, Names: c.Args().Slice(), Wait: wait}
			w := &status.Writer{Out: h.stdout, JSON: c.Bool("json")}
			if c.Bool("watch") {
				w.Screen = status.ScreenOf(h.stdout)
				return l.Watch(ctx, w)
			}
			p := l.Look(ctx)
			if len(l.Names) > 0 && len(p.Relays) == 0 {
				return p.Err()
			}
			if err := w.Write(&p, nil); err != nil {
				return err
			}
			return p.Err()
		},
	}
}
