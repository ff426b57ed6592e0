package collate

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
)

// Span ids of the tests: the root; calls are 0xC…; the guest's spans are small numbers, or
// count up from many.
const (
	root = 0xA0
	many = 0x10000
)

func TestRPCsGoBelowTheirCalls(t *testing.T) {
	for method, names := range map[string][]string{
		"Create": {
			"create_sandbox", "create_container", "update_interface", "update_routes", "add_arp_neighbors", "copy_file",
			"set_policy", "get_guest_details", "online_cpu_mem", "reseed_random_dev", "set_guest_date_time",
		},
		"Start":     {"start_container", "exec_process"},
		"Kill":      {"signal_process"},
		"Delete":    {"remove_container", "remove_stale_virtiofs_share_mounts", "destroy_sandbox"},
		"Shutdown":  {"remove_container", "remove_stale_virtiofs_share_mounts", "destroy_sandbox"},
		"Stats":     {"stats_container", "get_metrics"},
		"Update":    {"update_container"},
		"Pause":     {"pause_container"},
		"Resume":    {"resume_container"},
		"ResizePty": {"tty_win_resize"},
		"CloseIO":   {"close_stdin"},
		// Of the sandbox service.
		"StartSandbox": {"create_sandbox", "create_container"},
		"StopSandbox":  {"destroy_sandbox"},
		// These cause nothing, so what happens during them is the sandbox's.
		"Wait": {"wait_process", "root-span", "watch_uevents", "create_container", "read_stdout"},
	} {
		for _, name := range names {
			t.Run(method+"/"+name, func(t *testing.T) {
				b := newBed(t, func(o *Options) { o.Quiet = nil })
				b.called(method, "c", "", 0xC1, 0, 100)
				b.Add(of(spanOf(name, 7, 1, 0, 10, 20), "c", ""))
				b.Tick()
				parent := uint64(0xC1)
				if method == "Wait" {
					parent = root
				}
				b.want(1, ourTrace, parent)
			})
		}
	}
}

func TestWhichCall(t *testing.T) {
	type called struct {
		container, exec string
		id              uint64
		start, end      int64
	}
	for _, tc := range []struct {
		name            string
		method, rpc     string
		calls           []called
		container, exec string
		start           int64
		want            uint64
	}{
		{
			"the container, not the interval", "Create", "create_container",
			[]called{{"a", "", 0xC1, 0, 100}, {"b", "", 0xC2, 200, 300}}, "a", "", 250, 0xC1,
		},
		{
			"the exec, not the interval", "Start", "exec_process",
			[]called{{"a", "x", 0xC1, 0, 100}, {"a", "y", 0xC2, 200, 300}}, "a", "x", 250, 0xC1,
		},
		{
			"an exec of another name, by the interval", "Start", "exec_process",
			[]called{{"a", "", 0xC3, 200, 300}, {"a", "x", 0xC1, 0, 100}, {"a", "y", 0xC2, 200, 300}}, "a", "uuid", 250, 0xC2,
		},
		{
			"the container's process, not an exec", "Start", "start_container",
			[]called{{"a", "", 0xC1, 0, 100}, {"a", "x", 0xC2, 200, 300}}, "a", "", 250, 0xC1,
		},
		{
			"the interval", "Update", "update_container",
			[]called{{"a", "", 0xC1, 0, 100}, {"a", "", 0xC2, 200, 300}, {"a", "", 0xC3, 400, 500}}, "a", "", 210, 0xC2,
		},
		{
			"of two intervals the later", "Update", "update_container",
			[]called{{"a", "", 0xC1, 0, 1000}, {"a", "", 0xC2, 200, 300}}, "a", "", 210, 0xC2,
		},
		{
			"the nearest, if the clocks may be off", "Update", "update_container",
			[]called{{"a", "", 0xC1, 0, 100}, {"a", "", 0xC2, 1000, 1100}}, "a", "", 950, 0xC2,
		},
		{
			"the latest before, if that was not long ago", "Update", "update_container",
			[]called{{"a", "", 0xC1, 0, 100}, {"a", "", 0xC2, 1000, 1100}, {"a", "", 0xC3, 90000, 90100}}, "a", "", 3090, 0xC2,
		},
		{
			"none long ago", "Update", "update_container",
			[]called{{"a", "", 0xC1, 0, 100}, {"a", "", 0xC2, 1000, 1100}, {"a", "", 0xC3, 90000, 90100}}, "a", "", 30000, root,
		},
		{
			"whatever there is, if the clock is far off", "Create", "create_container",
			[]called{{"a", "", 0xC1, 90000, 90100}}, "a", "", 0, 0xC1,
		},
		{
			"no container said", "Create", "get_guest_details",
			[]called{{"a", "", 0xC1, 0, 100}, {"b", "", 0xC2, 200, 300}}, "", "", 50, 0xC1,
		},
		{
			"another container's is none", "Update", "update_container",
			[]called{{"a", "", 0xC1, 0, 100}}, "b", "", 50, root,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, nil)
			for _, c := range tc.calls {
				b.called(tc.method, c.container, c.exec, c.id, c.start, c.end)
			}
			b.Add(of(spanOf(tc.rpc, 7, 1, 0, tc.start, tc.start+5), tc.container, tc.exec))
			b.Tick()
			b.want(1, ourTrace, tc.want)
		})
	}
}

// A container is removed by its Delete if possible: on the guest's clock that may be within the
// Shutdown that follows.
func TestDeleteBeforeShutdown(t *testing.T) {
	for name, tc := range map[string]struct {
		start int64
		want  uint64
	}{"its Delete": {30, 0xC1}, "by a clock that is ahead": {130, 0xC1}, "far ahead": {5030, 0xC1}, "its Shutdown": {12_010, 0xC2}} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, nil)
			b.called("Delete", "a", "", 0xC1, 0, 100)
			shutdown := int64(110)
			if tc.want == 0xC2 {
				shutdown = 12_000
			}
			b.called("Shutdown", "a", "", 0xC2, shutdown, shutdown+100)
			if tc.start == 5030 {
				b.called("Create", "a", "", 0xC3, -1000, -900)
				b.Add(of(spanOf("create_container", 8, 2, 0, 4010, 4090), "a", ""))
			}
			b.Add(of(spanOf("remove_container", 7, 1, 0, tc.start, tc.start+40), "a", ""))
			b.Ended()
			b.want(1, ourTrace, tc.want)
		})
	}
}

func TestOpenCallAndCallsToldTwice(t *testing.T) {
	b := newBed(t, nil)
	open := calls.Call{Method: "Kill", ContainerID: "a", SpanContext: context(ourTrace, 0xC1), Start: time.Unix(0, t0)}
	b.Call(open)
	b.Add(of(spanOf("signal_process", 7, 1, 0, 10, 20), "a", ""))
	b.Tick()
	b.want(1, ourTrace, 0xC1)

	ended := open
	ended.End = time.Unix(0, t0+100*ms)
	b.Call(ended)
	b.Call(open) // reported late: it stays ended
	b.called("Kill", "a", "", 0xC2, 200, 300)
	b.Add(of(spanOf("signal_process", 8, 2, 0, 250, 260), "a", ""))
	b.Tick()
	b.want(2, ourTrace, 0xC2)
}

// The Go runtime names execs itself; what its first request teaches applies to the others.
func TestNamesOfExecsAreLearned(t *testing.T) {
	b := newBed(t, nil)
	b.called("Start", "a", "x", 0xC1, 0, 100)
	b.called("Start", "a", "y", 0xC2, 200, 300)
	b.called("ResizePty", "a", "x", 0xC3, 400, 500)
	b.called("ResizePty", "a", "y", 0xC4, 400, 500)
	b.Add(of(spanOf("exec_process", 7, 1, 0, 10, 20), "a", "uuid-x"))
	b.Add(of(spanOf("exec_process", 8, 2, 0, 210, 220), "a", "uuid-y"))
	b.Add(of(spanOf("tty_win_resize", 9, 3, 0, 410, 420), "a", "uuid-x"))
	b.Add(of(spanOf("tty_win_resize", 10, 4, 0, 410, 420), "a", "uuid-y"))
	b.Tick()
	b.want(3, ourTrace, 0xC3)
	b.want(4, ourTrace, 0xC4)
}

func TestQuiet(t *testing.T) {
	stats := func(b *bed, ms int64) {
		b.Add(of(spanOf("do_stats_container", 7, 2, 1, 10, 12), "a", ""))
		b.Add(of(spanOf("stats_container", 7, 1, 0, 10, 10+ms), "a", ""))
		b.Add(of(spanOf("late", 7, 3, 2, 10, 12), "a", ""))
		b.Tick()
		b.balance()
	}
	quiet := func(t *testing.T, b *bed) {
		t.Helper()
		if len(b.out) != 0 || b.drops[Quiet] != 3 {
			t.Errorf("%d spans were sent, dropped %v", len(b.out), b.drops)
		}
	}
	t.Run("with all below it", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Stats", "a", "", 0xC1, 0, 100)
		stats(b, 5)
		quiet(t, b)
	})
	t.Run("without its call", func(t *testing.T) {
		b := newBed(t, nil)
		stats(b, 5)
		quiet(t, b)
	})
	t.Run("in a trace of our own", func(t *testing.T) {
		b := newBed(t, nil)
		b.AddTrace(traceID(7))
		b.Add(of(spanOf("stats_container", 7, 1, 99, 10, 20), "a", ""))
		b.Tick()
		if b.drops[Quiet] != 1 {
			t.Errorf("dropped %v", b.drops)
		}
	})
	t.Run("below its own call", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Stats", "a", "", 0xC1, 0, 100)
		b.Add(of(spanOf("stats_container", 0xAAAA, 1, 0xC1, 10, 20), "a", ""))
		b.Tick()
		if b.drops[Quiet] != 1 {
			t.Errorf("dropped %v", b.drops)
		}
	})
	t.Run("isolated", func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Isolated = true })
		stats(b, 5)
		quiet(t, b)
	})
	t.Run("but slow", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Stats", "a", "", 0xC1, 0, 900)
		stats(b, 600)
		b.want(1, ourTrace, 0xC1)
		b.want(2, ourTrace, 1)
		b.want(3, ourTrace, 2)
	})
	t.Run("but slow for a call that is not recorded", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Stats", "a", "", 0xC1, 0, 100)
		stats(b, 600)
		b.want(1, ourTrace, root)
	})
	t.Run("but of a slow call", func(t *testing.T) {
		b := newBed(t, nil)
		b.called("Stats", "a", "", 0xC1, 0, 900)
		stats(b, 5)
		b.AddRuntime(served("Stats", ofRuntime("Stats", 8, 9, 99, 1, 30)))
		b.Tick()
		b.want(1, ourTrace, 0xC1)
		b.want(9, ourTrace, 0xC1)
	})
	t.Run("but failed", func(t *testing.T) {
		b := newBed(t, nil)
		b.Call(calls.Call{Method: "Stats", ContainerID: "a", SpanContext: context(ourTrace, 0xC1), Failed: true, Start: time.Unix(0, t0), End: time.Unix(0, t0+100*ms)})
		stats(b, 5)
		b.want(1, ourTrace, 0xC1)
	})
	t.Run("configured otherwise", func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Quiet = []string{"containerd.task.v3.Task/Kill"} })
		b.called("Stats", "a", "", 0xC1, 0, 100)
		b.called("Kill", "a", "", 0xC2, 0, 100)
		stats(b, 5)
		b.want(1, ourTrace, 0xC1)
		b.Add(of(spanOf("signal_process", 8, 9, 0, 10, 20), "a", ""))
		b.Tick()
		if b.drops[Quiet] != 1 {
			t.Errorf("dropped %v", b.drops)
		}
	})
}

func TestStrays(t *testing.T) {
	stray := func() *bed {
		b := newBed(t, nil)
		b.called("Create", "a", "", 0xC1, 0, 1000)
		return b
	}
	t.Run("before their RPC", func(t *testing.T) {
		b := stray()
		b.Add(spanOf("below", 8, 3, 2, 22, 25))
		b.Add(spanOf("baremount", 8, 2, 0, 20, 30))
		b.Add(spanOf("wait_process", 9, 4, 0, 0, 100)) // holds it, but does nothing
		b.Add(spanOf("stats_container", 9, 5, 0, 0, 100))
		b.Tick()
		if len(b.out) != 1 {
			t.Errorf("%d spans were sent before the RPC", len(b.out))
		}
		b.Add(spanOf("create_sandbox", 7, 1, 0, 10, 90))
		b.Tick()
		b.want(1, ourTrace, 0xC1)
		b.want(2, ourTrace, 1)
		b.want(3, ourTrace, 2)
	})
	t.Run("after their RPC, in the shortest", func(t *testing.T) {
		b := stray()
		b.Add(spanOf("create_sandbox", 7, 1, 0, 10, 900))
		b.Add(spanOf("update_routes", 7, 9, 0, 15, 40))
		b.Add(spanOf("baremount", 8, 2, 0, 20, 30))
		b.Add(spanOf("baremount", 9, 3, 0, 20, 50))
		b.Tick()
		b.want(2, ourTrace, 9)
		b.want(3, ourTrace, 1)
	})
	t.Run("of an RPC that waits itself", func(t *testing.T) {
		b := stray()
		b.Add(spanOf("create_sandbox", 7, 1, 99, 10, 90))
		b.Add(spanOf("baremount", 8, 2, 0, 20, 30))
		b.AddRuntime(ofRuntime("ttrpc.CreateSandbox", 7, 99, 0, 9, 91))
		b.Tick()
		b.want(1, ourTrace, 99)
		b.want(2, ourTrace, 1)
	})
	t.Run("of no RPC", func(t *testing.T) {
		b := stray()
		b.Add(spanOf("baremount", 8, 2, 0, 20, 30))
		b.Add(spanOf("baremount", 9, 3, 0, 60_000, 60_001))
		b.pass(16 * time.Second)
		b.want(2, ourTrace, 0xC1)
		b.want(3, ourTrace, root)
	})
	t.Run("too many", func(t *testing.T) {
		b := stray()
		for i := range uint64(maxThreads + 10) {
			b.Add(spanOf("baremount", many+i, many+i, 0, 20, 30))
		}
		b.Tick()
		if len(b.out) != 10 {
			t.Errorf("%d strays got a place at once, want 10", len(b.out))
		}
		b.want(many+maxThreads, ourTrace, 0xC1)
	})
}

func TestInjectedContextsStay(t *testing.T) {
	caller := traceID(0xBBBB)
	b := newBed(t, nil)
	b.calledIn(caller, "Create", "a", "", 0xC1, 0, 100)
	// From the agent's relay: its client span is unknown here, the trace is not.
	b.Add(of(spanOf("create_container", 0xBBBB, 1, 0x55, 10, 20), "a", ""))
	// From the shim's relay.
	b.Add(of(spanOf("create_container", 0xBBBB, 2, 0xC1, 10, 20), "a", ""))
	// The root itself.
	b.Add(spanOf("work", 0xAAAA, 3, root, 10, 20))
	b.Tick()
	b.want(1, caller, 0x55)
	b.want(2, caller, 0xC1)
	b.want(3, ourTrace, root)
	if s := b.Stats(); s.Rewritten != 0 {
		t.Errorf("%d spans were rewritten", s.Rewritten)
	}
}

func TestUnsampled(t *testing.T) {
	b := newBed(t, func(o *Options) { o.Root = o.Root.WithTraceFlags(0) })
	b.Call(calls.Call{Method: "Kill", ContainerID: "a", SpanContext: context(ourTrace, 0xC1).WithTraceFlags(0), Start: time.Unix(0, t0), End: time.Unix(0, t0+100*ms)})
	b.Add(of(spanOf("do_signal_process", 7, 2, 1, 10, 20), "a", ""))
	b.Add(of(spanOf("signal_process", 7, 1, 0, 10, 20), "a", ""))
	b.Add(spanOf("signal_process", 0xAAAA, 3, 0xC1, 10, 20))
	b.Add(spanOf("signal_process", 0xAAAA, 4, 0x55, 10, 20))
	b.Ended()
	b.balance()
	if len(b.out) != 0 || b.drops[unsampled] != 4 {
		t.Errorf("%d spans were sent, dropped %v", len(b.out), b.drops)
	}
}

func TestWithoutRoot(t *testing.T) {
	b := newBed(t, func(o *Options) { o.Root = trace.SpanContext{} })
	b.Add(spanOf("wait_process", 7, 1, 0, 10, 20))
	b.Ended()
	if s := b.get(1); len(s.ParentSpanId) != 0 || len(s.Links) != 0 || trace.TraceID(s.TraceId) == traceID(7) {
		t.Errorf("sent as %v", s)
	}
}

// TestRoots: when the sandbox gets another root, late spans go to the trace of their own time.
func TestRoots(t *testing.T) {
	first, second := context(traceID(0xB1), 0xB1), context(traceID(0xB2), 0xB2)
	unsampled := trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID(0xB0), SpanID: spanID(0xB0)})
	b := newBed(t, func(o *Options) { o.Root = unsampled })
	b.setRoot(first)
	b.pass(time.Second)
	b.setRoot(second)
	b.pass(time.Second)
	b.Add(spanOf("wait_process", 1, 1, 0, -10, 500))
	b.AddRuntime(ofRuntime("createAssets", 7, 2, 0, 1, 500))
	b.Add(spanOf("watch_uevents", 2, 3, 0, 500, 1500))
	b.Add(spanOf("check", 3, 4, 0, 1200, 1500))
	b.Add(spanOf("check", 4, 5, 0xB1, 1200, 1500)) // by its own account
	b.Ended()
	b.want(1, first.TraceID(), 0xB1)
	b.want(2, first.TraceID(), 0xB1)
	b.want(3, second.TraceID(), 0xB2)
	b.want(4, second.TraceID(), 0xB2)
	b.want(5, first.TraceID(), 0xB1)
}

// TestOwnTraceIsNotForgotten, however many callers had traces of their own.
func TestOwnTraceIsNotForgotten(t *testing.T) {
	b := newBed(t, nil)
	for i := range uint64(2 * maxTraces) {
		b.calledIn(traceID(0x10000+i), "Stats", "a", "", 0x10000+i, 0, 1)
	}
	b.Add(spanOf("wait_process", 0xAAAA, 1, 0xD1, 5, 6)) // of a request long ago
	b.Ended()
	b.want(1, ourTrace, 0xD1)
}
