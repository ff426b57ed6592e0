package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/doctor"
)

func doctorCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "look at all that tracing on this host depends on, and say what to do",
		Description: "It looks at containerd and its configuration, the links, the inner shims, shimtrace's own\n" +
			"configuration, the journal, the processes that the host has once, the ports, the collector,\n" +
			"Kata and the kernel. It changes nothing; the one thing that it sends is a test span to\n" +
			"the configured collector. Each finding says what, where, and what to do.\n\n" +
			"Exit codes: 0 no error, 1 an error was found.\n\n" +
			"Examples:\n   shimtrace doctor\n   shimtrace doctor --quiet --no-send\n   shimtrace doctor --json | jq 'select(.level == \"error\")'",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only what is not well"},
			&cli.BoolFlag{Name: "no-send", Usage: "send no test span"},
			&cli.StringFlag{Name: "root", Value: h.root, Usage: "look only at the files below `DIR`, the root of an image or of a host"},
			&cli.DurationFlag{Name: "every", HideDefault: true, Usage: "go on, look again after each `PAUSE`, and print only findings that are new"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			tool, err := h.executable()
			if err != nil {
				return err
			}
			if c.Duration("every") < 0 {
				return console.UsageError("--every %s: a pause is not negative", c.Duration("every"))
			}
			report := &doctor.Report{Out: h.stdout, JSON: c.Bool("json"), Color: h.color(), Width: h.width(0), Quiet: c.Bool("quiet")}
			o := doctor.Options{Root: c.String("root"), Proc: "/proc", Getenv: h.getenv, Tool: tool, Send: !c.Bool("no-send")}
			say := console.New(h.stderr)
			defer say.Close()
			if every := c.Duration("every"); every > 0 {
				ctx, stop := untilSignal(ctx)
				defer stop()
				return doctor.Watch(ctx, every, o, report.Tell)
			}
			err = doctor.Run(ctx, o, say.Step, report.Tell)
			say.End("")
			failed, summary := report.Failed()
			switch {
			case err != nil:
				return err
			case failed:
				return errors.New(summary)
			case !c.Bool("json"):
				h.warn("%s", summary)
			}
			return nil
		},
	}
}
