package main

import (
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
)

// width returns the width to draw: as asked for, from COLUMNS, the terminal's, or 0 for
// the default.
func (h *host) width(asked int) int {
	if asked > 0 {
		return asked
	}
	if n, err := strconv.Atoi(h.getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	return console.Width(h.stdout)
}

// askedWidth is width with what the flag --width asks for.
func (h *host) askedWidth(c *cli.Command) (int, error) {
	asked := c.Int("width")
	if asked < 0 {
		return 0, console.UsageError("--width %d: a width is not negative", asked)
	}
	return h.width(asked), nil
}

// color reports whether stdout accepts escape sequences (see no-color.org).
func (h *host) color() bool {
	return h.getenv("NO_COLOR") == "" && h.getenv("TERM") != "dumb" && console.Width(h.stdout) > 0
}
