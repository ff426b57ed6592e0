package containerdconf

import (
	"fmt"
	"strings"
)

// around is how many unchanged lines a diff shows on either side of the change.
const around = 3

// diff shows how a file changes in one place, as diff -u does; nil is no file.
func diff(path string, before, after []byte) string {
	name := func(content []byte) string {
		if content == nil {
			return "/dev/null"
		}
		return path
	}
	a, b := lines(before), lines(after)
	first := 0
	for first < len(a) && first < len(b) && a[first] == b[first] {
		first++
	}
	last := 0
	for last < len(a)-first && last < len(b)-first && a[len(a)-1-last] == b[len(b)-1-last] {
		last++
	}
	from, to := max(0, first-around), min(last, around)
	gone, come := a[first:len(a)-last], b[first:len(b)-last]
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", name(before), name(after))
	kept := first - from + to
	fmt.Fprintf(&out, "@@ -%s +%s @@\n", span(from, kept+len(gone)), span(from, kept+len(come)))
	for _, part := range []struct {
		mark  string
		lines []string
	}{{" ", a[from:first]}, {"-", gone}, {"+", come}, {" ", a[len(a)-last : len(a)-last+to]}} {
		for _, l := range part.lines {
			out.WriteString(part.mark + l + "\n")
		}
	}
	return out.String()
}

// span returns a range of lines as a diff writes it.
func span(from, n int) string {
	if n == 0 {
		return fmt.Sprintf("%d,0", from)
	}
	return fmt.Sprintf("%d,%d", from+1, n)
}

// lines returns the lines of a file without their breaks; a last line without a break
// says so, as in diff's output.
func lines(content []byte) []string {
	if len(content) == 0 {
		return nil
	}
	text, whole := strings.CutSuffix(string(content), "\n")
	all := strings.Split(text, "\n")
	if !whole {
		all[len(all)-1] += "\n\\ No newline at end of file"
	}
	return all
}
