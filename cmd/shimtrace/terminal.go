package main

import (
	"strconv"

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

// color reports whether stdout accepts escape sequences (see no-color.org).
func (h *host) color() bool {
	return h.getenv("NO_COLOR") == "" && h.getenv("TERM") != "dumb" && console.Width(h.stdout) > 0
}
