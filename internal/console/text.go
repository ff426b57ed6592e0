package console

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"
)

// Width returns the width of the terminal w in cells, 0 if w is no terminal.
func Width(w any) int {
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

// Height returns the height of the terminal w in lines, 0 if w is no terminal.
func Height(w any) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	_, height, err := term.GetSize(int(f.Fd()))
	if err != nil || height < 1 {
		return 24
	}
	return height
}

// Spans formats a number of spans.
func Spans(n int) string {
	if n == 1 {
		return "1 span"
	}
	return fmt.Sprintf("%d spans", n)
}

// ByReason formats a total with its counts by reason; empty if there are none.
func ByReason[R comparable](what string, counts map[R]uint64) string {
	total, reasons := uint64(0), []string{}
	for reason, n := range counts {
		total += n
		reasons = append(reasons, fmt.Sprintf("%v: %d", reason, n))
	}
	if total == 0 {
		return ""
	}
	slices.Sort(reasons)
	return fmt.Sprintf("%d %s (%s)", total, what, strings.Join(reasons, ", "))
}
