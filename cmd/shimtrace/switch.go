package main

import (
	"context"
	"fmt"
	"os"
	"os/user"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/relays"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/urfave/cli/v3"
)

// switchTargets explains in --help how to name sandboxes.
const switchTargets = "A sandbox is named by its id or the id of one of its containers, which may be shortened, by a\n" +
	"container's name, or by its pod (POD or NAMESPACE/POD). \"all\" means those that run now: one\n" +
	"that starts later is off until it is switched on.\n\n"

// switchUsage is the argument of on and off.
const switchUsage = "SANDBOX...|all"

func onCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:      "on",
		Usage:     "switch the tracing of running sandboxes on (trace.mode = \"dynamic\")",
		ArgsUsage: switchUsage,
		Description: switchTargets +
			"Each period on is a trace of its own. The relay watches the time, without this tool. If\n" +
			"tracing is on already, its time starts again.\n\n" +
			"Examples:\n   shimtrace on default/web-0 --for 30s\n   shimtrace on all --json",
		Flags: append(switchFlags(),
			&cli.DurationFlag{Name: "for", Usage: "switch it off again after `DURATION`, for instance 30s (default: at shimtrace off)", HideDefault: true}),
		Action: func(ctx context.Context, c *cli.Command) error {
			d := c.Duration("for")
			if c.IsSet("for") && d <= 0 {
				return console.UsageError("--for %s: a time to be on is positive", d)
			}
			return h.turn(ctx, c, control.Request{Do: control.DoOn, For: d, By: h.who()})
		},
	}
}

func offCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:      "off",
		Usage:     "switch the tracing of running sandboxes off again",
		ArgsUsage: switchUsage,
		Description: switchTargets +
			"Calls under way are still recorded when they end.\n\n" +
			"Examples:\n   shimtrace off default/web-0\n   shimtrace off all",
		Flags: switchFlags(),
		Action: func(ctx context.Context, c *cli.Command) error {
			return h.turn(ctx, c, control.Request{Do: control.DoOff, By: h.who()})
		},
	}
}

func switchFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line"},
		&cli.StringFlag{Name: "state-dir", Usage: "look for relays below `DIR` (default: relay.state_dir of the configuration)"},
	}
}

// stateDir returns the state directory that the flags of switchFlags name, else the
// configured one.
func (h *host) stateDir(c *cli.Command) string {
	if dir := c.String("state-dir"); dir != "" {
		return dir
	}
	return h.config("").Relay.StateDir
}

// turn sends the request to the relays that the command line names, and prints the
// answers.
func (h *host) turn(ctx context.Context, c *cli.Command, r control.Request) error {
	names := c.Args().Slice()
	if len(names) == 0 {
		return console.UsageError("%s needs the name of a sandbox, or all; shimtrace status lists them", c.FullName())
	}
	return relays.Operator{Dir: h.stateDir(c), Out: h.stdout, Warn: h.warn}.Ask(ctx, names, r, c.Bool("json"))
}

// who returns the name of the person at the terminal, also behind sudo.
func (h *host) who() string {
	if name := h.getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint("uid ", os.Getuid())
}
