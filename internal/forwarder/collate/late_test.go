package collate

import (
	"testing"

	"go.opentelemetry.io/otel/trace"
)

// TestLongAfterItsParent: a span that began long after its parent's end is below the call in
// flight, or the sandbox, and linked to its parent, whichever arrives first.
func TestLongAfterItsParent(t *testing.T) {
	linked := func(b *bed, id, to uint64) {
		t.Helper()
		for _, l := range b.get(id).Links {
			if trace.SpanID(l.SpanId) == spanID(to) && trace.TraceID(l.TraceId) == ourTrace {
				return
			}
		}
		t.Errorf("span %x is not linked to %x: %v", id, to, b.get(id).Links)
	}
	for name, order := range map[string][]int{"after it": {0, 1, 2, 3}, "before it": {1, 2, 3, 0}} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, nil)
			b.called("Start", "a", "", 0xC1, 0, 1000)
			b.called("Kill", "a", "", 0xC2, 21_000, 22_000)
			for _, i := range order {
				switch i {
				case 0:
					b.AddRuntime(served("Start", ofRuntime("Start", 7, 1, 99, 1, 999)))
				case 1: // while Kill lasts
					b.AddRuntime(ofRuntime("storeSandbox", 7, 3, 2, 21_200, 21_250))
					b.AddRuntime(ofRuntime("stop", 7, 2, 1, 21_100, 21_900))
				case 2: // while nothing does
					b.AddRuntime(ofRuntime("waitProcess", 7, 4, 1, 30_000, 30_100))
				case 3: // soon after
					b.AddRuntime(ofRuntime("watch", 7, 5, 1, 1010, 1100))
				}
			}
			b.Ended()
			b.want(1, ourTrace, 0xC1)
			b.want(2, ourTrace, 0xC2)
			b.want(3, ourTrace, 2)
			b.want(4, ourTrace, root)
			b.want(5, ourTrace, 1)
			linked(b, 2, 1)
			linked(b, 4, 1)
			if n := len(b.get(5).Links) + len(b.get(3).Links); n != 0 {
				t.Errorf("%d more links", n)
			}
			b.balance()
		})
	}
	t.Run("a task that outlives the call in flight", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Start", "a", "", 0xC1, 0, 100)
		b.AddRuntime(ofRuntime("wait_process", 7, 1, 0, 99, 20_000))
		b.Ended()
		b.want(1, ourTrace, root)
		linked(b, 1, 0xC1)
	})
	t.Run("an agent's request by an old context", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Start", "a", "", 0xC1, 0, 100)
		b.AddRuntime(served("Start", ofRuntime("Start", 7, 1, 99, 1, 99)))
		b.Add(of(spanOf("wait_process", 7, 2, 1, 20_000, 20_100), "a", ""))
		b.Add(spanOf("destroy_sandbox", 0xAAAA, 3, 0xC1, 20_000, 20_100))
		b.Ended()
		b.want(2, ourTrace, root)
		linked(b, 2, 1)
		b.want(3, ourTrace, root)
		linked(b, 3, 0xC1)
	})
	t.Run("not where the runtime keeps its traces", func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Isolated = true })
		b.called("Start", "a", "", 0xC1, 0, 100)
		b.AddRuntime(served("Start", ofRuntime("Start", 7, 1, 99, 1, 99)))
		b.AddRuntime(ofRuntime("stop", 7, 2, 1, 21_100, 21_900))
		b.Ended()
		b.want(2, traceID(7), 1)
	})
}
