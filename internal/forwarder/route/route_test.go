package route

import (
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestOwnSpansInOrder: two sandboxes at the same time, each gets its own spans, all
// of them, as they came.
func TestOwnSpansInOrder(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{})
	a, b := h.sandbox(t, "aaaaaaaa-1"), h.sandbox(t, "bbbbbbbb-1")
	const posts = 500
	want := map[*sandbox][]string{}
	var posting sync.WaitGroup
	for i, s := range []*sandbox{a, b} {
		names := numbered(s.id, 2*posts)
		want[s] = names
		posting.Go(func() {
			for n := range posts {
				part := spans(byte(i+1), names[2*n:2*n+2]...)
				if n == 0 {
					of(s.id, part)
				}
				h.Take(nowhere, "kata", part)
			}
		})
	}
	posting.Wait()
	a.same(t, want[a]...)
	b.same(t, want[b]...)
	h.lostNothing(t)
}

// TestWhatTells has each way in which a post identifies its sandbox.
func TestWhatTells(t *testing.T) {
	for name, tc := range map[string]struct {
		post func(h *hosted)
		a, b []string
		held int
	}{
		"the service": {
			post: func(h *hosted) { h.Take(nowhere, "kata-sb-aaaaaaaa", spans(1, "x")) },
			a:    []string{"x"},
		},
		"the service before the id": {
			post: func(h *hosted) { h.Take(nowhere, "kata-sb-bbbbbbbb", of("aaaaaaaa-1", spans(1, "x"))) },
			b:    []string{"x"},
		},
		"another service": {
			post: func(h *hosted) { h.Take(nowhere, "kata-sb-cccccccc", of("aaaaaaaa-1", spans(1, "x"))) },
			a:    []string{"x"},
		},
		"a part of the id": {
			post: func(h *hosted) { h.Take(nowhere, "kata-sb-aaaa", spans(1, "x")) },
			held: 1,
		},
		"a span further on in the post": {
			post: func(h *hosted) {
				post := spans(1, "x", "y", "z")
				post[2].Sandbox = "bbbbbbbb-1"
				h.Take(nowhere, "kata", post)
			},
			b: []string{"x", "y", "z"},
		},
		"an earlier post's trace": {
			post: func(h *hosted) {
				h.Take(nowhere, "kata", of("aaaaaaaa-1", spans(1, "x")))
				h.Take(nowhere, "kata", of("bbbbbbbb-1", spans(2, "v")))
				h.Take(nowhere, "kata", spans(1, "y"))
				h.Take(nowhere, "kata", spans(3, "z"))
			},
			a: []string{"x", "y"}, b: []string{"v"}, held: 1,
		},
		"a later post's trace": {
			post: func(h *hosted) {
				h.Take(nowhere, "kata", spans(1, "x", "y"))
				h.Take(nowhere, "kata", spans(2, "v"))
				h.Take(nowhere, "kata", spans(1, "z"))
				h.Take(nowhere, "kata", of("aaaaaaaa-1", spans(1, "last")))
			},
			a: []string{"x", "y", "z", "last"}, held: 1,
		},
		"by way of others": {
			post: func(h *hosted) {
				h.Take(nowhere, "kata", spans(1, "x"))
				h.Take(nowhere, "kata", append(spans(1, "y"), spans(2, "y")...))
				h.Take(nowhere, "kata", spans(3, "not"))
				h.Take(nowhere, "kata", of("bbbbbbbb-1", spans(2, "z")))
			},
			b: []string{"x", "y", "y", "z"}, held: 1,
		},
		"the trace before the id": {
			post: func(h *hosted) {
				h.Take(nowhere, "kata", of("aaaaaaaa-1", spans(1, "x")))
				h.Take(nowhere, "kata", of("bbbbbbbb-1", spans(1, "y")))
			},
			a: []string{"x", "y"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
			a, b := h.sandbox(t, "aaaaaaaa-1"), h.sandbox(t, "bbbbbbbb-1")
			tc.post(h)
			a.same(t, tc.a...)
			b.same(t, tc.b...)
			if n := h.Snapshot().Held; n != tc.held {
				t.Errorf("%d spans are held, want %d", n, tc.held)
			}
		})
	}
}

// TestAmbiguousService: if two sandboxes' ids begin alike, the service identifies
// neither; if a sandbox came back under the same id, the latest counts.
func TestAmbiguousService(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	one, two := h.sandbox(t, "cccccccc-1"), h.sandbox(t, "cccccccc-2")
	h.Take(nowhere, "kata-sb-cccccccc", spans(1, "x"))
	h.Take(nowhere, "kata-sb-cccccccc", of("cccccccc-2", spans(2, "y")))
	two.same(t, "y")
	if n := h.Snapshot().Held; n != 1 {
		t.Errorf("%d spans are held, want 1", n)
	}
	again := h.sandbox(t, "cccccccc-1")
	two.stop()
	eventually(t, "the other one is gone", func() bool { return h.listed("cccccccc-2") == 0 })
	h.Take(nowhere, "kata-sb-cccccccc", spans(3, "z"))
	again.same(t, "x", "z") // now the service tells of the first one, too
	one.same(t)
}

// TestHeldUntilRelayComes: spans that came before their sandbox's relay.
func TestHeldUntilRelayComes(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	h.Take(nowhere, "kata", spans(1, "w"))
	h.Take(nowhere, "kata", of("a", spans(1, "x")))
	h.Take(nowhere, "kata-sb-a", spans(2, "y"))
	h.Take(nowhere, "kata", spans(1, "z"))
	h.sandbox(t, "a").same(t, "w", "x", "y", "z")
	h.lostNothing(t)
}

// TestHoldIsBounded in time, and in bytes; what is lost is counted.
func TestHoldIsBounded(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Millisecond})
	h.sandbox(t, "a")
	h.Take(nowhere, "kata", spans(1, "x", "y"))
	eventually(t, "they are lost", func() bool { return int(h.drops.Of(losses.UnknownSandbox)) == 2 })
	if s := h.Snapshot(); s.Held != 0 || s.Lost[losses.UnknownSandbox] != 2 {
		t.Errorf("%+v", s)
	}
	h = startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour, HeldBytes: 4 << 10})
	for range 1000 {
		h.Take(nowhere, "kata", spans(1, "x"))
	}
	s := h.Snapshot()
	if s.Held == 0 || s.Held > 16 || s.Held+int(s.Lost[losses.HeldFull]) != 1000 || int(h.drops.Of(losses.HeldFull)) != 1000-s.Held {
		t.Errorf("%+v", s)
	}
	n := s.Held
	h.sandbox(t, "b")
	h.Take(nowhere, "kata", of("b", spans(1, "last")))
	eventually(t, "those that were held arrive", func() bool { return h.Snapshot().Sent == uint64(n+1) })
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held.bytes != 0 {
		t.Errorf("%d bytes are counted as held", h.held.bytes)
	}
}

// TestManyTraces: the traces remembered of a sandbox are bounded, and held batches with
// more of them still end in an answer.
func TestManyTraces(t *testing.T) {
	h := startHost(t, t.TempDir(), RouterOptions{Hold: time.Hour})
	names := numbered("x", 4*maxTraces)
	for n, name := range names {
		post := spans(1, name)
		post[0].TraceID = traceID{byte(n), byte(n >> 8), 1}
		h.Take(nowhere, "kata-sb-a", post)
	}
	a := h.sandbox(t, "a")
	a.same(t, names...)
	h.mu.Lock()
	n := len(h.traces)
	h.mu.Unlock()
	if n != maxTraces {
		t.Errorf("%d traces are remembered, want %d", n, maxTraces)
	}
	a.stop()
	eventually(t, "they are forgotten with the relay", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.traces)+len(h.Router.sandbox)+len(h.service)+len(h.links) == 0
	})
}
