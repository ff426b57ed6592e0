package waterfall

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
)

// drawData draws the only story in a message.
func drawData(t *testing.T, data []byte, o Options) (string, *Story) {
	t.Helper()
	x := NewIndex()
	if err := x.Add(data, time.Now()); err != nil {
		t.Fatal(err)
	}
	stories := x.Stories()
	if len(stories) != 1 {
		t.Fatalf("%d stories", len(stories))
	}
	b := NewBuilder(stories[0], Limits{}, o.Verbose)
	if err := b.Add(data); err != nil {
		t.Fatal(err)
	}
	o.Location = time.UTC
	var out bytes.Buffer
	if err := Render(&out, stories[0], b.Tree(), o); err != nil {
		t.Fatal(err)
	}
	return out.String(), stories[0]
}

// TestPods draws whole pods, as a person first sees them.
func TestPods(t *testing.T) {
	for _, name := range storytest.Pods {
		data := storytest.Captured(name)
		for _, width := range []int{80, 120, 200} {
			out, story := drawData(t, data, Options{Width: width})
			golden(t, fmt.Sprintf("%s-%d.txt", name, width), []byte(out))
			if lines := strings.Count(out, "\n"); lines > 160 {
				t.Errorf("%s: %d lines of %d spans", name, lines, story.Spans)
			}
		}
	}
}
