package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/relays"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

func upgradeCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:  "upgrade",
		Usage: "move running relays to the installed shim, without touching their pods",
		Description: "Each relay stops between two frames, and a process of the installed program takes over its\n" +
			"connections and its trace: no call fails, and each waits at most some milliseconds. A program\n" +
			"that cannot take over a relay is refused, and that relay goes on unchanged. Sandboxes that\n" +
			"start later get the installed program anyway.\n\n" +
			"Exit codes: 0 all were moved, 1 some were not, 3 there is none.\n\n" +
			"Examples:\n   shimtrace upgrade --dry-run\n   shimtrace upgrade\n   shimtrace upgrade --json | jq 'select(.error)'",
		Flags: append(switchFlags(),
			&cli.BoolFlag{Name: "dry-run", Usage: "only ask whether the program could take over"},
			&cli.StringFlag{Name: "program", Usage: "move them to the shim at `PATH` (default: the one beside this tool)"},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			program, err := h.newShim(c.String("program"))
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(ctx)
			defer stop()
			return relays.Upgrade{Dir: h.stateDir(c), Program: program, DryRun: c.Bool("dry-run"), JSON: c.Bool("json"), Out: h.stdout}.Run(ctx)
		},
	}
}

// newShim returns the path of the program to move relays to.
func (h *host) newShim(named string) (string, error) {
	if named == "" {
		self, err := h.executable()
		if err != nil {
			return "", err
		}
		named = filepath.Join(filepath.Dir(self), shimname.RelayProgram)
	}
	path, err := exec.LookPath(named)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", fmt.Errorf("the shim to move relays to: %w: name it with --program", err)
	}
	return path, nil
}
