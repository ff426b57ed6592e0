package collate

import (
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
)

// pod is a captured pod with contexts for its calls.
type pod struct {
	*captured.Pod
	calls []calls.Call
}

func loadPod(t *testing.T, name string) *pod {
	p := &pod{Pod: captured.Load(t, name)}
	for i, c := range p.Calls {
		p.calls = append(p.calls, calls.Call{
			Method: c.Method, ContainerID: c.ContainerID, ExecID: c.ExecID,
			Start: c.Start, End: c.End, SpanContext: context(ourTrace, uint64(0xC000+i)),
		})
	}
	return p
}

// play gives a bed calls and spans in their order: a call as it begins and ends, the runtime's
// spans as their post's last one ends, the agent's some seconds after their ends.
func (p *pod) play(b *bed) { p.playIn(b, p.calls) }

// playIn is play with other calls and further events.
func (p *pod) playIn(b *bed, calls []calls.Call, more ...event) {
	events := append(more, b.lives(calls)...)
	at := int64(0)
	for _, post := range p.Runtime {
		for _, s := range post {
			at = max(at, int64(s.End)+ms)
		}
		events = append(events, event{at, func() {
			for _, s := range post {
				b.AddRuntime(s)
			}
		}})
	}
	b.live(append(events, b.arrivals(p.Agent)...))
	b.AgentEnded()
	b.Ended()
}

// TestPods replays captured pods.
func TestPods(t *testing.T) {
	for _, name := range []string{captured.Go, captured.Rust} {
		t.Run(name, func(t *testing.T) {
			p := loadPod(t, name)
			b := newBed(t, quietSpans)
			p.play(b)
			b.balance()
			var calls [][8]byte
			for _, c := range p.calls {
				calls = append(calls, c.SpanContext.SpanID())
			}
			p.Check(t, ourTrace, rootSpan.SpanID(), calls, b.out)
			if n := b.drops[Quiet]; len(b.drops) != 1 || n+len(b.out)-int(b.Stats().Placeholders) != p.Size() {
				t.Errorf("of %d spans %d were sent, dropped: %v", p.Size(), len(b.out), b.drops)
			}
		})
	}
}
