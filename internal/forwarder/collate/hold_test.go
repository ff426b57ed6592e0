package collate

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
)

func TestHeldUntilTheRootArrives(t *testing.T) {
	b := newBed(t, nil)
	b.called("Start", "a", "", 0xC1, 0, 100)
	b.Add(spanOf("leaf", 7, 3, 2, 30, 40))
	b.Add(of(spanOf("do_start_container", 7, 2, 1, 20, 50), "a", ""))
	b.Tick()
	if s := b.Stats(); len(b.out) != 0 || s.Held != 2 || s.HeldBytes <= 0 {
		t.Fatalf("%d spans were sent too early; %+v", len(b.out), s)
	}
	b.Add(of(spanOf("start_container", 7, 1, 0, 10, 60), "a", ""))
	b.Tick()
	b.want(1, ourTrace, 0xC1)
	b.want(2, ourTrace, 1)
	b.want(3, ourTrace, 2)
	b.Add(spanOf("late", 7, 4, 2, 30, 90)) // its parent has been sent
	b.Tick()
	b.want(4, ourTrace, 2)
	if s := b.Stats(); s.Held != 0 || s.HeldBytes != 0 || b.nodes() != 0 || b.orphans() != 0 {
		t.Errorf("something is still held: %+v", s)
	}
}

// An agent's child can name another trace than its parent is in.
func TestParentInAnotherTrace(t *testing.T) {
	b := newBed(t, nil)
	b.called("Kill", "a", "", 0xC1, 0, 100)
	b.Add(of(spanOf("do_signal_process", 7, 2, 1, 20, 50), "a", ""))
	b.Add(of(spanOf("signal_process", 8, 1, 0, 10, 60), "a", ""))
	b.Tick()
	b.want(1, ourTrace, 0xC1)
	b.want(2, ourTrace, 1)
}

func TestLostParent(t *testing.T) {
	b := newBed(t, nil)
	b.called("Start", "a", "x", 0xC1, 0, 100)
	b.called("Update", "a", "", 0xC2, 0, 100)
	b.Add(of(spanOf("do_exec_process", 7, 2, 1, 20, 50), "a", "x"))
	b.Add(spanOf("after", 7, 3, 1, 15, 30))
	b.pass(14 * time.Second)
	if len(b.out) != 0 {
		t.Fatal("sent before its time")
	}
	b.pass(2 * time.Second)
	b.want(2, ourTrace, 1)
	b.want(3, ourTrace, 1)
	if s := b.Stats(); s.Awaited != 1 || s.Inferred != 1 {
		t.Errorf("%+v", s)
	}
	b.Add(spanOf("late", 7, 4, 1, 10, 70)) // follows at once
	b.Ended()
	b.want(4, ourTrace, 1)
	p := b.get(1)
	b.want(1, ourTrace, 0xC1)
	if p.Name != names.LostAgentSpan || !attribute(p, names.Placeholder).GetBoolValue() ||
		p.StartTimeUnixNano != uint64(t0+10*ms) || p.EndTimeUnixNano != uint64(t0+70*ms) {
		t.Errorf("the placeholder is %v", p)
	}
	b.Add(spanOf("exec_process", 7, 1, 0, 10, 60)) // after all
	b.Tick()
	if b.drops[Duplicate] != 1 {
		t.Errorf("the span of a placeholder: dropped %v", b.drops)
	}
	b.balance()
}

// A lost span is inferred from its children's names and ids, then from its trace's earlier
// cause, then by time.
func TestPlaceOfTheLost(t *testing.T) {
	b := newBed(t, nil)
	b.called("Create", "a", "", 0xC1, 0, 100)
	b.called("Kill", "a", "", 0xC2, 200, 300)
	b.called("Kill", "b", "", 0xC3, 200, 300)
	b.Add(of(spanOf("signal_process", 7, 1, 0, 210, 220), "a", ""))
	b.Add(spanOf("x", 7, 11, 10, 50, 60)) // of trace 7
	b.Add(spanOf("x", 8, 21, 20, 50, 60)) // within Create
	b.Add(spanOf("x", 9, 31, 30, 10_000, 10_060))
	b.Add(of(spanOf("y", 10, 43, 41, 210, 220), "b", "")) // its container tells, from below
	b.Add(spanOf("x", 10, 41, 40, 210, 220))
	b.Add(spanOf("new", 11, 51, 50, 50, 60))
	b.Ended()
	b.want(10, ourTrace, 0xC2)
	b.want(20, ourTrace, 0xC1)
	b.want(30, ourTrace, root)
	b.want(40, ourTrace, 0xC3)
	b.want(50, ourTrace, root)
}

// root-span and watch_uevents last as long as the agent; their children do not wait for them.
func TestLifeLongParents(t *testing.T) {
	b := newBed(t, nil)
	b.Add(spanOf("new", 7, 3, 2, 10, 20))
	b.Add(spanOf("process", 8, 6, 5, 10, 20))
	b.pass(time.Minute)
	b.want(3, ourTrace, 2)
	b.want(6, ourTrace, 5)
	b.Add(spanOf("start_sandbox", 7, 2, 1, 5, 100_000))
	b.Add(spanOf("watch_uevents", 8, 5, 0, 5, 100_000))
	b.Add(spanOf("root-span", 7, 1, 0, 0, 100_000))
	b.Ended()
	b.want(1, ourTrace, root)
	b.want(2, ourTrace, 1)
	b.want(5, ourTrace, root)
	if s := b.Stats(); s.Placeholders != 0 || s.Awaited != 0 {
		t.Errorf("%+v", s)
	}
}

// The children's trace was chosen without their parent, which belongs elsewhere.
func TestLateParentFollowsItsChildren(t *testing.T) {
	first, second := traceID(0xB1), traceID(0xB2)
	b := newBed(t, nil)
	b.calledIn(first, "Create", "a", "", 0xC1, 0, 1000)
	b.calledIn(second, "Kill", "b", "", 0xC2, 0, 1000)
	b.Add(of(spanOf("x", 7, 2, 1, 10, 20), "a", ""))
	b.pass(16 * time.Second)
	b.want(2, first, 1)
	b.Add(of(spanOf("signal_process", 7, 1, 0, 5, 30), "b", ""))
	b.Tick()
	b.want(1, first, 0xC1)
	if s := b.get(1); len(s.Links) != 1 || trace.SpanID(s.Links[0].SpanId) != spanID(0xC2) {
		t.Errorf("it is not linked to its own call: %v", s.Links)
	}
	// And one whose parent was sent in another trace.
	b.Add(of(spanOf("x", 7, 4, 3, 10, 20), "a", ""))
	b.Add(of(spanOf("signal_process", 9, 5, 0, 5, 30), "b", ""))
	b.pass(16 * time.Second)
	b.Add(spanOf("y", 7, 3, 5, 10, 30))
	b.Ended()
	b.want(3, first, 0xC1)
	b.want(4, first, 3)
	if s := b.get(3); len(s.Links) != 1 || trace.SpanID(s.Links[0].SpanId) != spanID(5) {
		t.Errorf("it is not linked to its parent: %v", s.Links)
	}
	b.balance()
}

func TestSpansThatWaitAreBounded(t *testing.T) {
	cost := nodeCost + spanOf("x", 7, many, many+1, 0, 1).Cost()
	for name, limit := range map[string]func(*Options){
		"spans": func(o *Options) { o.MaxSpans = 100 },
		"bytes": func(o *Options) { o.MaxBytes = 100 * cost },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, limit)
			for i := range uint64(1000) {
				b.Add(spanOf("x", 7, many+2*i, many+2*i+1, 0, 1))
				if s := b.Stats(); s.Held > 100 || s.HeldBytes > 100*cost {
					t.Fatalf("%+v", s)
				}
			}
			b.Tick()
			if s := b.Stats(); s.Sent < 900 || s.Dropped != 0 {
				t.Errorf("%+v", s)
			}
			if b.by[spanID(many)] == nil {
				t.Error("the one that waited longest was not sent first")
			}
		})
	}
}

func TestAwaitedParentsAreBounded(t *testing.T) {
	b := newBed(t, func(o *Options) { o.MaxAwaited = 10 })
	b.called("Create", "a", "", 0xC1, 0, 100)
	for i := range uint64(100) {
		b.Add(spanOf("x", 100+i, many+2*i, many+2*i+1, 10, 20))
	}
	b.Ended()
	below := 0
	for _, s := range b.out {
		if parentOf(s) == spanID(0xC1) && s.Name == "x" {
			below++
		}
	}
	if s := b.Stats(); s.Placeholders != 10 || s.Sent != 100 || below != 90 {
		t.Errorf("%d directly below the call, %+v", below, s)
	}
}

func TestContextsOfNobody(t *testing.T) {
	b := newBed(t, nil)
	b.called("Create", "a", "", 0xC1, 0, 100)
	b.called("Start", "a", "", 0xC2, 100, 200)
	b.Add(of(spanOf("create_container", 7, 1, 99, 10, 20), "a", ""))
	b.pass(16 * time.Second)
	b.want(1, ourTrace, 0xC1)
	// Now this trace is known to have such contexts.
	b.Add(of(spanOf("start_container", 7, 2, 98, 110, 120), "a", ""))
	b.Ended()
	b.want(2, ourTrace, 0xC2)
	if s := b.Stats(); s.Placeholders != 0 || s.Rewritten != 2 {
		t.Errorf("%+v", s)
	}
}

// TestBelowTheRuntime: a span that names a runtime's span follows it.
func TestBelowTheRuntime(t *testing.T) {
	other := traceID(0xB1)
	b := newBed(t, nil)
	b.calledIn(other, "Create", "a", "", 0xC1, 0, 100)
	b.Add(spanOf("leaf", 7, 3, 2, 10, 20))
	b.Add(spanOf("create_container", 7, 2, 99, 10, 20))                // waits for 99
	b.AddRuntime(ofRuntime("ttrpc.CreateContainer", 7, 99, 98, 9, 21)) // waits for 98
	b.Add(spanOf("start_container", 7, 4, 99, 10, 20))
	b.Add(spanOf("fake", 7, 99, 0, 10, 20))
	b.Tick()
	if len(b.out) != 0 {
		t.Errorf("sent before what is above: %v", b.out)
	}
	b.AddRuntime(served("Create", ofRuntime("create", 7, 98, 97, 5, 25)))
	b.Tick()
	b.want(98, other, 0xC1)
	b.want(99, other, 98)
	b.want(2, other, 99)
	b.want(3, other, 2)
	b.want(4, other, 99)
	if b.drops[Duplicate] != 1 {
		t.Errorf("dropped %v", b.drops)
	}
}
