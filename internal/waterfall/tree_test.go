package waterfall

import (
	"fmt"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// outline returns a tree in one line: names, with children in brackets.
func outline(nodes []*Node) string {
	var items []string
	for _, n := range nodes {
		name, _ := (&renderer{story: new(Story)}).label(n)
		switch n.Place {
		case Linked:
			name = "→" + name
		case loose:
			name = "↻" + name
		case absent:
			name = "?"
		case unstarted:
			name = "root?"
		}
		if n.Children != nil {
			name += "(" + outline(n.Children) + ")"
		}
		items = append(items, name)
	}
	return strings.Join(items, " ")
}

func TestBuild(t *testing.T) {
	res := resourceOf("containerd-shim-runc-v2")
	tests := map[string]struct {
		make func(s *script)
		want string
	}{
		"children before parents, by time": {func(s *script) {
			s.Span(res, "s", "c", "b", "c", 3, 1)
			s.Span(res, "s", "b2", "a", "b2", 9, 1)
			s.Span(res, "s", "b", "a", "b", 2, 9)
			s.Span(res, "s", "a", "", "a", 1, 9)
		}, "a(b(c) b2)"},
		"repeated": {func(s *script) {
			s.Span(res, "s", "a", "", "a", 1, 9)
			s.Span(res, "s", "b", "a", "b", 2, 1)
			s.Span(res, "s", "b", "a", "b", 2, 1)
		}, "a(b)"},
		"two children of one absent parent": {func(s *script) {
			s.Span(res, "s", "b", "x", "b", 2, 1)
			s.Span(res, "s", "c", "x", "c", 3, 1)
			s.Span(res, "s", "a", "", "a", 9, 1)
		}, "?(b c) a"},
		"link followed across traces": {func(s *script) {
			s.Span(res, "s", "a", "", "a", 1, 9)
			s.Span(res, "t", "b", "caller", "b", 2, 1, linked("s", "a"))
			s.Span(res, "t", "c", "b", "c", 3, 1, linked("s", "a"))
		}, "a(→b(c))"},
		"link to a root that is not there yet, and its own children": {func(s *script) {
			s.Span(res, "t", "b", "caller", "b", 2, 1, linked("s", "root"))
			s.Span(res, "s", "c", "root", "c", 3, 1)
		}, "root?(→b c)"},
		"circle": {func(s *script) {
			s.Span(res, "s", "c", "b", "c", 3, 1)
			s.Span(res, "s", "b", "a", "b", 2, 1)
			s.Span(res, "s", "a", "c", "a", 1, 1)
			s.Span(res, "s", "d", "b", "d", 4, 1)
		}, "↻a(b(c d))"},
		"its own parent": {func(s *script) {
			s.Span(res, "s", "a", "a", "a", 1, 1)
			s.Span(res, "s", "b", "a", "b", 2, 1)
		}, "↻a(b)"},
		"way into a circle": {func(s *script) {
			s.Span(res, "s", "out", "b", "out", 5, 1)
			s.Span(res, "s", "b", "a", "b", 2, 1)
			s.Span(res, "s", "a", "b", "a", 1, 1)
		}, "↻a(b(out))"},
		"links in a circle": {func(s *script) {
			s.Span(res, "s", "a", "x", "a", 1, 1, linked("t", "b"))
			s.Span(res, "t", "b", "y", "b", 2, 1, linked("s", "a"))
		}, "↻a(→b)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &script{}
			tt.make(s)
			if got := outline(build(nil, s.Spans, Limits{}).Roots); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestBuildLimit(t *testing.T) {
	s := &script{}
	res := resourceOf("containerd-shim-runc-v2")
	for i := range 10 {
		s.Span(res, "s", fmt.Sprint(i), "", "a", 1, 1)
	}
	tree := build(nil, s.Spans, Limits{Spans: 4})
	if tree.Spans != 4 || tree.Omitted != 6 || len(tree.Roots) != 4 {
		t.Errorf("%d spans, %d omitted, %d roots", tree.Spans, tree.Omitted, len(tree.Roots))
	}
}

// TestInvalidIDs: spans without valid ids are shown, and have no children.
func TestInvalidIDs(t *testing.T) {
	spans := []*tracepb.ResourceSpans{nil, {}, {ScopeSpans: []*tracepb.ScopeSpans{nil, {Spans: []*tracepb.Span{
		nil, {Name: "short", TraceId: []byte{1}, SpanId: []byte{2}},
		{Name: "zero", TraceId: make([]byte, 16), SpanId: make([]byte, 8), ParentSpanId: make([]byte, 8)},
	}}}}}
	tree := build(nil, spans, Limits{})
	if got := outline(tree.Roots); got != "(no name) short zero" {
		t.Errorf("got %s", got)
	}
	if n := len(indexOf(spans).Stories()); n != 0 {
		t.Errorf("%d stories of spans without ids", n)
	}
}
