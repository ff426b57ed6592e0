package waterfall

import (
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// arrival is a message of one span.
type arrival struct {
	spans  []*tracepb.ResourceSpans
	posted bool
}

// arrivals returns the spans of both scripts, each in a message of its own: ours first,
// theirs first, in turn, and from the last to the first.
func arrivals(ours, posted *script) map[string][]arrival {
	var a, b, turns, back []arrival
	for i := range ours.Spans {
		a = append(a, arrival{ours.Spans[i : i+1], false})
	}
	for i := range posted.Spans {
		b = append(b, arrival{posted.Spans[i : i+1], true})
	}
	for i := range max(len(a), len(b)) {
		turns = append(turns, append(a[min(i, len(a)):min(i+1, len(a)):min(i+1, len(a))], b[min(i, len(b)):min(i+1, len(b))]...)...)
	}
	for i := range turns {
		back = append(back, turns[len(turns)-1-i])
	}
	return map[string][]arrival{
		"ours first": append(a[:len(a):len(a)], b...), "theirs first": append(b[:len(b):len(b)], a...), "in turn": turns, "backwards": back,
	}
}

// grown returns the outline of a sandbox's story that is looked at again after each
// message, and read once.
func grown(t *testing.T, sandbox string, all []arrival) string {
	t.Helper()
	x := NewIndex()
	var b *Builder
	got := ""
	for i, m := range all {
		add := x.Add
		if m.posted {
			add = x.AddPosted
		}
		if err := add(message(m.spans), recorded); err != nil {
			t.Fatal(err)
		}
		var story *Story
		for _, s := range x.Snapshot().Stories() {
			if s.Sandbox == sandbox {
				story = s
			}
		}
		if story == nil {
			continue
		}
		news := all[i : i+1]
		if b == nil {
			b = NewBuilder(story, Limits{Aside: 1 << 20}, true)
			news = all[:i+1]
		}
		for _, m := range news {
			add := b.Add
			if m.posted {
				add = b.AddPosted
			}
			if err := add(message(m.spans)); err != nil {
				t.Fatal(err)
			}
		}
		b.Update(story)
		got = outline(b.Tree().Roots)
	}
	return got
}

// TestAsideBound: what is kept of other stories has a bound, and the latest is kept.
func TestAsideBound(t *testing.T) {
	res := &resource{others: true}
	a := aside{most: 10_000}
	for i := range 100 {
		id := spanKey{}.trace
		id[0] = byte(i + 1)
		for range 10 {
			a.put(res, ByOthers, make([]byte, 100), id)
		}
		if a.bytes > a.most || len(a.order) != len(a.traces) {
			t.Fatalf("%d bytes, %d traces, %d in order", a.bytes, len(a.traces), len(a.order))
		}
		if a.traces[id] == nil {
			t.Fatal("the latest is gone")
		}
	}
	a.put(res, ByOthers, make([]byte, 20_000), spanKey{}.trace)
	a.put(res, ByOthers, make([]byte, 20_000), [16]byte{200})
	if a.bytes != 0 || len(a.traces) != 0 {
		t.Errorf("of a span beyond the bound, %d bytes are kept", a.bytes)
	}
}
