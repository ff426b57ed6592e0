package waterfall

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// FuzzRender feeds whole OTLP messages through everything: no panic, and bounded,
// harmless lines.
func FuzzRender(f *testing.F) {
	for _, s := range []*script{kataPod(), joined()} {
		f.Add(message(s.Spans), 80, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, width int, verbose bool) {
		checkRender(t, data, width%300, verbose)
	})
}

// FuzzBuild makes spans from bytes, with so few ids that circles, repetitions and
// missing parents are common.
func FuzzBuild(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"))
	f.Add([]byte("abacadaeafbcbdbebfcdcecfdedfef"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &script{}
		res := resourceOf("containerd-shim-runc-v2")
		ids := []string{"", "a", "b", "c", "d", "e", "f", "g"}
		for ; len(data) >= 4 && len(s.Spans) < 48; data = data[4:] {
			id, parent, link := ids[data[0]&7], ids[data[0]>>3&7], ids[data[1]&7]
			s.Span(res, ids[data[0]>>6], id, parent, fmt.Sprintf("%x", data[:4]), time.Duration(data[2])<<(data[1]>>3), time.Duration(data[3]), linked(ids[data[1]>>3&3], link))
		}
		if tree := build(nil, s.Spans, Limits{}); tree.Spans+tree.Repeated != len(s.Spans) || drawn(tree.Roots) != tree.Spans {
			t.Fatalf("of %d spans %d are counted, %d repeated, %d in the tree", len(s.Spans), tree.Spans, tree.Repeated, drawn(tree.Roots))
		}
		checkRender(t, message(s.Spans), 80, false)
	})
}

func drawn(nodes []*Node) (n int) {
	for _, node := range nodes {
		if node.Span != nil {
			n++
		}
		n += drawn(node.Children)
	}
	return n
}

func checkRender(t *testing.T, data []byte, width int, verbose bool) {
	x := NewIndex()
	broken := x.Add(data, recorded)
	for _, story := range x.Stories() {
		var out bytes.Buffer
		b := NewBuilder(story, Limits{}, verbose)
		if err := b.Add(data); fmt.Sprint(err) != fmt.Sprint(broken) {
			t.Fatalf("the index says %v of the message, the tree %v", broken, err)
		}
		tree := b.Tree()
		if err := Render(&out, story, tree, Options{Width: width, Verbose: verbose, Location: time.UTC}); err != nil {
			t.Fatal(err)
		}
		limit := max(width, minWidth)
		if width == 0 {
			limit = defaultWidth
		}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if w := Width(line); w > limit {
				t.Fatalf("a line of %d cells on a terminal of %d: %q", w, limit, line)
			}
			for _, r := range line {
				if r < 0x20 || r >= 0x7f && r < 0xa0 {
					t.Fatalf("control character %U in %q", r, line)
				}
			}
		}
	}
}
