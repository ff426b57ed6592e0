package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/manpage"
)

// manCommand writes the manual pages, for packages.
func manCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:        "man",
		Usage:       "write the manual pages of all commands into a directory",
		ArgsUsage:   "DIR",
		Description: "Example:\n   shimtrace man --date 2026-08-21 /tmp",
		Hidden:      true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "date", Value: time.Now().UTC().Format(time.DateOnly), Usage: "the `DATE` that the pages are of"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Len() != 1 {
				return console.UsageError("%s takes one argument, a directory", c.FullName())
			}
			_, err := manpage.Write(c.Args().First(), newApp(h), manpage.Header{Version: thisBuild().Version, Date: c.String("date")})
			return err
		},
	}
}
