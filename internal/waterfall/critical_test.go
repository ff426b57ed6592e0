package waterfall

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestCritical: parts of the critical path are blocks, and what is long on it is not
// folded; the lines of the head stand above, harmless and within the width.
func TestCritical(t *testing.T) {
	story, tree := only(deep().Spans)
	critical := make(map[*Node][]Interval)
	for n := range tree.All() {
		switch at := n.Interval(); n.Name() {
		case "create_container":
			critical[n] = []Interval{{at.From, at.From + uint64(500*ms)}}
		case "driver_types": // shorter than a hundredth
			critical[n] = []Interval{at}
		}
	}
	var b bytes.Buffer
	o := Options{Width: 100, Location: time.UTC, Critical: critical, Head: []string{"slow: create_container 500ms", "hostile\x1b[2J " + strings.Repeat("long ", 100)}}
	if err := Render(&b, story, tree, o); err != nil {
		t.Fatal(err)
	}
	golden(t, "critical.txt", b.Bytes())
	if strings.ContainsRune(b.String(), '\x1b') {
		t.Error("an escape sequence got through")
	}
	for line := range strings.Lines(b.String()) {
		if w := Width(strings.TrimRight(line, "\n")); w > o.Width {
			t.Errorf("%d cells: %q", w, line)
		}
	}
}
