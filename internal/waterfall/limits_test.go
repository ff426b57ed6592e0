package waterfall

import (
	"fmt"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

// TestSeen forgets the oldest spans, not the latest, and never takes more memory.
func TestSeen(t *testing.T) {
	s := newSeen()
	key := func(n int) (k spanKey) {
		for i := range 8 {
			k.span[i] = byte(n >> (8 * i))
		}
		k.trace[0] = 1
		return k
	}
	const n = 3 * maxSeen
	for i := 1; i <= n; i++ {
		if !s.add(key(i)) {
			t.Fatalf("%d was not added before", i)
		}
		if i > 10 && s.add(key(i-10)) {
			t.Fatalf("%d was added before", i-10)
		}
	}
	if size := 8 * (len(s.now.slots) + len(s.old.slots)); size > 16<<20 {
		t.Errorf("%d bytes", size)
	}
	if s.add(key(n)) || !s.add(key(1)) {
		t.Error("the latest is forgotten, or the oldest is not")
	}
}

// TestTooMuch: an index with too many stories forgets the oldest and counts them; one
// story gets the rest of a sandbox with too many traces.
func TestTooMuch(t *testing.T) {
	x := NewIndex()
	var spans []*tracepb.ResourceSpans
	flush := func() {
		if err := x.Add(message(spans), recorded); err != nil {
			t.Fatal(err)
		}
		spans = nil
	}
	id := func(n int) []byte {
		return []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, byte(n >> 16), byte(n >> 8), byte(n)}
	}
	one := func(sandboxID string, n int) {
		spans = append(spans, &tracepb.ResourceSpans{Resource: sandbox(sandboxID), ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{
			{TraceId: id(n), SpanId: id(n)[8:], Name: "x", StartTimeUnixNano: uint64(epoch.UnixNano() + int64(n)), EndTimeUnixNano: uint64(epoch.UnixNano() + int64(n))},
		}}}})
	}
	for n := range maxParts + 100 {
		one(fmt.Sprint(n), n)
		if n%1000 == 999 {
			flush()
		}
	}
	flush()
	for n := range maxTraces + 500 {
		one("flooder", 1<<20+n)
	}
	flush()
	stories := x.Stories()
	_, evicted := x.Omitted()
	if got := len(stories) + evicted; got != maxParts+100+maxTraces || evicted < maxParts/4 {
		t.Errorf("%d stories and %d forgotten, want %d", len(stories), evicted, maxParts+100+maxTraces)
	}
	last, most := stories[len(stories)-1], 0
	for _, s := range stories {
		most = max(most, s.Spans)
	}
	if last.Sandbox != "flooder" || most != 501 {
		t.Errorf("the last story is of %q, the largest has %d spans", last.Sandbox, most)
	}
	if spans, _ := x.Omitted(); spans != 0 {
		t.Errorf("%d spans are in no story", spans)
	}
}

// TestNameless: spans that name no sandbox are counted when they have too many traces.
func TestNameless(t *testing.T) {
	x := NewIndex()
	var spans []*tracepb.Span
	for n := range maxTraces + 7 {
		b := byte(n)
		spans = append(spans, &tracepb.Span{TraceId: []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, byte(n >> 8), b}, SpanId: []byte{1, 2, 3, 4, 5, 6, byte(n >> 8), b}})
	}
	if err := x.Add(message([]*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}}}), recorded); err != nil {
		t.Fatal(err)
	}
	omitted, _ := x.Omitted()
	if n := len(x.Stories()); n != maxTraces || omitted != 7 {
		t.Errorf("%d stories, %d spans omitted", n, omitted)
	}
}

// TestTreeLimits: guests' spans do not crowd out the host's.
func TestTreeLimits(t *testing.T) {
	flood := &script{}
	for i := range 3000 {
		flood.Span(resourceOf(names.AgentScope), "s", string(rune(i+1000)), "root", "flood", 0, ms)
	}
	pod := kataPod()
	spans := append(flood.Spans, pod.Spans...)
	story := indexOf(spans).Stories()[0]
	tree := build(story, spans, Limits{Bytes: 200 << 10})
	host := 0
	for _, n := range tree.Roots {
		for _, c := range n.Children {
			if c.by == ByShim {
				host++
			}
		}
	}
	if tree.Omitted == 0 || tree.Spans > 400 || host < 10 || len(tree.Roots) != 1 {
		t.Errorf("%d spans, %d left out, %d of the host below %d roots", tree.Spans, tree.Omitted, host, len(tree.Roots))
	}
}
