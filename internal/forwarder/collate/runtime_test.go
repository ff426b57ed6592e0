package collate

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/names"
)

// begun reports a call that began some ms after t0 and has not ended.
func (b *bed) begun(method, container, exec string, id uint64, start int64) {
	b.Call(calls.Call{Method: method, ContainerID: container, ExecID: exec, SpanContext: context(ourTrace, id), Start: time.Unix(0, t0+start*ms)})
}

// TestRuntimeCalls: what the runtime serves goes below the call, whatever it names as its
// parent.
func TestRuntimeCalls(t *testing.T) {
	t.Run("of the Go runtime", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Create", "a", "", 0xC1, 0, 100)
		b.called("Create", "b", "", 0xC2, 200, 300)
		b.AddRuntime(ofRuntime("createAssets", 7, 2, 1, 10, 20))
		b.AddRuntime(served("Create", ofRuntime("create", 7, 1, 9, 5, 95)))
		// The second is below the first, as the runtime has it.
		b.AddRuntime(ofRuntime("bindMount", 7, 4, 3, 220, 230))
		b.AddRuntime(served("Create", ofRuntime("create", 7, 3, 1, 205, 295)))
		b.AddRuntime(ofRuntime("rootSpan", 7, 9, 0, 1, 400))
		b.Tick()
		b.want(1, ourTrace, 0xC1)
		b.want(2, ourTrace, 1)
		b.want(3, ourTrace, 0xC2)
		b.want(4, ourTrace, 3)
		b.want(9, ourTrace, root)
		b.Ended()
		b.balance()
		if s := b.Stats(); s.Placeholders != 0 || s.Dropped != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("of runtime-rs", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Create", "a", "", 0xC1, 0, 100)
		b.called("Start", "a", "", 0xC2, 110, 200)
		b.called("Start", "b", "", 0xC3, 110, 200)
		// Spans that are no calls, below the root that does not arrive.
		b.AddRuntime(ofRuntime("prepare_for_start_sandbox", 7, 2, 1, 10, 20))
		b.AddRuntime(ofRuntime("sb: start", 7, 1, 99, 5, 60))
		b.AddRuntime(ofRuntime("create_container", 8, 3, 0, 60, 90))
		for id, name := range map[uint64]string{4: "handler_task_message", 5: "handler_task_request"} {
			s := served("Start", ofRuntime(name, 7, id, 99, 115, 190))
			s.ContainerID = "b"
			b.AddRuntime(s)
		}
		b.Tick()
		b.want(1, ourTrace, 0xC1)
		b.want(2, ourTrace, 1)
		b.want(3, ourTrace, 0xC1)
		b.want(4, ourTrace, 0xC3)
		b.want(5, ourTrace, 0xC3)
		b.Ended()
		if s := b.Stats(); s.Placeholders != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("of the sandbox service", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("CreateSandbox", "a", "", 0xC1, 0, 100)
		b.called("StopSandbox", "a", "", 0xC2, 200, 300)
		b.AddRuntime(served("CreateSandbox", ofRuntime("handler_sandbox_message", 7, 1, 99, 5, 95)))
		b.AddRuntime(served("StopSandbox", ofRuntime("handler_sandbox_message", 7, 2, 99, 205, 295)))
		b.Tick()
		b.want(1, ourTrace, 0xC1)
		b.want(2, ourTrace, 0xC2)
	})
	t.Run("at the same time", func(t *testing.T) {
		// The match can only follow from containment, or from what is already matched.
		b := newBed(t, nil)
		b.called("Start", "a", "", 0xC1, 0, 100)
		b.called("Start", "b", "", 0xC2, 1, 50)
		b.called("Start", "c", "", 0xC3, 1, 50)
		b.AddRuntime(served("Start", ofRuntime("Start", 7, 1, 99, 3, 90)))
		b.AddRuntime(served("Start", ofRuntime("Start", 7, 2, 99, 3, 40)))
		b.AddRuntime(served("Start", ofRuntime("Start", 7, 3, 99, 3, 40)))
		b.Tick()
		b.want(1, ourTrace, 0xC1)
		if x, y := parentOf(b.get(2)), parentOf(b.get(3)); x == y || x == spanID(0xC1) || y == spanID(0xC1) {
			t.Errorf("below %v and %v", x, y)
		}
	})
	t.Run("of a call that is not there", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Start", "a", "", 0xC1, 0, 100)
		b.AddRuntime(served("Kill", ofRuntime("Kill", 7, 1, 99, 3, 90)))
		b.AddRuntime(served("Start", ofRuntime("Start", 7, 2, 99, 60_000, 60_001)))
		b.Tick()
		b.want(1, ourTrace, root)
		b.want(2, ourTrace, root)
	})
}

// TestRuntimeQuiet: what a quiet call causes is dropped, unless it is slow or the call fails,
// which is known only once it is answered.
func TestRuntimeQuiet(t *testing.T) {
	b := newBed(t, func(o *Options) { o.QuietSpans = []string{"AddEndpoints", "ttrpc.ReadStdout"} })
	b.begun("Stats", "a", "", 0xC1, 0)
	b.AddRuntime(ofRuntime("ttrpc.StatsContainer", 7, 2, 1, 5, 10))
	b.AddRuntime(served("Stats", ofRuntime("Stats", 7, 1, 99, 1, 20)))
	b.begun("State", "a", "", 0xC2, 30)
	b.AddRuntime(served("State", ofRuntime("State", 7, 3, 99, 31, 32)))
	b.begun("Stats", "a", "", 0xC3, 40)
	b.AddRuntime(served("Stats", ofRuntime("Stats", 7, 4, 99, 41, 900)))
	b.begun("Wait", "a", "", 0xC4, 50)
	b.AddRuntime(served("Wait", ofRuntime("Wait", 7, 5, 99, 51, 5000)))
	b.AddRuntime(ofRuntime("AddEndpoints", 7, 6, 4, 51, 53))
	b.AddRuntime(ofRuntime("AddEndpoints", 7, 7, 4, 51, 800))
	b.AddRuntime(ofRuntime("ttrpc.ReadStdout", 7, 8, 4, 51, 800))
	b.Tick()
	b.called("Stats", "a", "", 0xC1, 0, 21)
	b.Call(calls.Call{Method: "State", ContainerID: "a", SpanContext: context(ourTrace, 0xC2), Start: time.Unix(0, t0+30*ms), End: time.Unix(0, t0+33*ms), Failed: true})
	b.Tick()
	b.want(3, ourTrace, 0xC2)
	b.want(4, ourTrace, 0xC3)
	b.want(7, ourTrace, 4)
	if len(b.out) != 3 || b.drops[Quiet] != 5 {
		t.Errorf("sent %v, dropped %v", b.out, b.drops)
	}
	b.balance()
}

// TestRuntimeIsolated: the runtime keeps its trace, linked to the calls, without the agent's
// spans.
func TestRuntimeIsolated(t *testing.T) {
	b := newBed(t, func(o *Options) { o.Isolated = true })
	b.called("Create", "a", "", 0xC1, 0, 100)
	b.AddRuntime(ofRuntime("createAssets", 7, 2, 1, 10, 20))
	b.Add(spanOf("do_create_container", 7, 11, 10, 40, 50))
	b.Add(spanOf("create_container", 7, 10, 3, 30, 60))
	b.Add(spanOf("get_guest_details", 7, 12, 3, 30, 60))
	b.Add(spanOf("leaf", 7, 13, 2, 30, 60))
	b.AddRuntime(ofRuntime("ttrpc.CreateContainer", 7, 3, 1, 25, 65))
	b.AddRuntime(served("Create", ofRuntime("create", 7, 1, 9, 5, 95)))
	b.AddRuntime(ofRuntime("rootSpan", 7, 9, 0, 1, 400))
	b.Ended()
	b.balance()
	for id, parent := range map[uint64]uint64{1: 9, 2: 1, 3: 1, 9: 0} {
		b.want(id, traceID(7), parent)
	}
	agents := trace.TraceID(b.get(10).TraceId)
	if agents == traceID(7) || agents == ourTrace {
		t.Errorf("the agent's spans are in %v", agents)
	}
	for id, parent := range map[uint64]uint64{10: 0, 11: 10, 12: 0, 13: 0} {
		b.want(id, agents, parent)
	}
	links := func(id uint64) map[trace.SpanID]bool {
		m := make(map[trace.SpanID]bool)
		for _, l := range b.get(id).Links {
			m[trace.SpanID(l.SpanId)] = true
		}
		return m
	}
	if l := links(1); !l[spanID(0xC1)] {
		t.Errorf("create is linked to %v", l)
	}
	if l := links(9); !l[spanID(root)] {
		t.Errorf("rootSpan is linked to %v", l)
	}
	if l := links(10); !l[spanID(root)] || !l[spanID(3)] {
		t.Errorf("create_container is linked to %v", l)
	}
}

// TestRuntimeEnds: a quiet call that failed just before the end, or before the limit on waiting
// was reached, is placed like any other.
func TestRuntimeEnds(t *testing.T) {
	for _, full := range []bool{false, true} {
		b := newBed(t, func(o *Options) {
			if o.Isolated = true; full {
				o.MaxSpans = 1
			}
		})
		b.begun("Stats", "a", "", 0xC1, 0)
		b.AddRuntime(served("Stats", ofRuntime("Stats", 7, 1, 99, 1, 20)))
		b.Call(calls.Call{Method: "Stats", ContainerID: "a", SpanContext: context(ourTrace, 0xC1), Start: time.Unix(0, t0), End: time.Unix(0, t0+21*ms), Failed: true})
		if full {
			b.AddRuntime(ofRuntime("createAssets", 7, 2, 3, 20, 21))
		}
		b.Ended()
		b.want(1, traceID(7), 99)
		b.want(99, traceID(7), 0)
	}
}

// TestRuntimeLost: what the runtime never sent gets a placeholder of that name.
func TestRuntimeLost(t *testing.T) {
	b := newBed(t, nil)
	b.called("Shutdown", "a", "", 0xC1, 0, 100)
	b.AddRuntime(ofRuntime("createAssets", 7, 2, 99, 1, 2))
	b.Add(spanOf("destroy_sandbox", 7, 10, 3, 30, 60))
	b.pass(16 * time.Second)
	b.want(10, ourTrace, 3)
	b.AgentEnded()
	if b.Stats().Placeholders != 0 {
		t.Error("the runtime has not ended")
	}
	b.Ended()
	b.want(3, ourTrace, 0xC1)
	if s := b.get(3); s.Name != names.LostRuntimeSpan || attribute(s, names.Placeholder) == nil {
		t.Errorf("%v", s)
	}
}

// TestClocksAreTheHosts: only the guest's times are corrected.
func TestClocksAreTheHosts(t *testing.T) {
	b := newBed(t, nil)
	b.called("Create", "a", "", 0xC1, 0, 100)
	b.Add(of(spanOf("create_container", 8, 20, 0, 5000, 5050), "a", "")) // proves the offset
	b.called("Start", "a", "", 0xC2, 200, 300)
	b.AddRuntime(ofRuntime("ttrpc.StartContainer", 7, 2, 1, 220, 290))
	b.Add(of(spanOf("start_container", 7, 10, 2, 5220, 5280), "a", ""))
	b.AddRuntime(served("Start", ofRuntime("Start", 7, 1, 99, 205, 295)))
	b.Tick()
	if s := b.get(2); s.StartTimeUnixNano != uint64(t0+220*ms) || s.EndTimeUnixNano != uint64(t0+290*ms) {
		t.Errorf("the runtime's span was moved: %v", s)
	}
	if s := b.get(10); s.StartTimeUnixNano >= uint64(t0+300*ms) || attribute(s, names.OriginalStart) == nil {
		t.Errorf("the agent's span was not: %v", s)
	}
}
