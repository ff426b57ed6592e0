package main

import (
	"time"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/view"
)

// filterFlags returns the flags of a view.Filter; min says what --min is about.
func filterFlags(min string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "pod", Usage: "only pods called `NAME` or namespace/name; with wildcards: 'web-*'"},
		&cli.StringFlag{Name: "container", Usage: "only what is about the container with that `NAME` or id"},
		&cli.StringFlag{Name: "since", Usage: "only what began since `TIME`: 90m, 2h, 7d, 15:04, 2006-01-02"},
		&cli.DurationFlag{Name: "min", HideDefault: true, Usage: "only " + min + " of at least `DURATION`"},
		&cli.BoolFlag{Name: "errors", Usage: "only what failed"},
	}
}

func filterOf(c *cli.Command) (f view.Filter, err error) {
	f = view.Filter{Pod: c.String("pod"), Container: c.String("container"), Min: c.Duration("min"), Errors: c.Bool("errors")}
	if since := c.String("since"); since != "" {
		if f.Since, err = view.ParseSince(since, time.Now()); err != nil {
			return f, err
		}
	}
	return f, f.Check()
}
