package main

import (
	"os"
	"strconv"

	"golang.org/x/term"
)

// terminal returns the width of the terminal that w is, 0 if it is none.
func terminal(w any) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 1 {
		return 80
	}
	return width
}

// width returns how wide to draw: as asked for, as COLUMNS says, as the terminal
// is, or 0 for the default.
func (h *host) width(asked int) int {
	if asked > 0 {
		return asked
	}
	if n, err := strconv.Atoi(h.getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	return terminal(h.stdout)
}

// color reports whether stdout takes escape sequences (see no-color.org).
func (h *host) color() bool {
	return h.getenv("NO_COLOR") == "" && h.getenv("TERM") != "dumb" && terminal(h.stdout) > 0
}
