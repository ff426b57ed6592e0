package collate

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/names"
)

func TestCause(t *testing.T) {
	b := newBed(t, nil)
	b.called("Create", "a", "", 0xC1, 0, 10) // is over
	b.begun("Create", "b", "", 0xC2, 20)
	b.begun("Start", "a", "", 0xC3, 21)
	b.begun("Start", "a", "x", 0xC4, 22)
	b.begun("Stats", "a", "", 0xC5, 23)
	b.begun("Wait", "a", "", 0xC6, 24)
	for _, test := range []struct {
		calls.Request
		want uint64
	}{
		{calls.Request{Method: "CreateContainer", ContainerID: "b", ExecID: "b"}, 0xC2},
		{calls.Request{Method: "UpdateInterface"}, 0xC2},
		{calls.Request{Method: "CreateContainer", ContainerID: "a"}, root},
		{calls.Request{Method: "StartContainer", ContainerID: "a"}, 0xC3},
		{calls.Request{Method: "ExecProcess", ContainerID: "a", ExecID: "7c0b2d0e-5d5f-4c39-8a35-9a7b4f5b0e11"}, 0xC4},
		{calls.Request{Method: "StatsContainer", ContainerID: "a", Quiet: true}, 0xC5},
		{calls.Request{Method: "SignalProcess", ContainerID: "a"}, root},
		{calls.Request{Method: "WaitProcess", ContainerID: "a"}, root},
		{calls.Request{Method: "OfALaterKata", ContainerID: "b"}, 0xC2},
		{calls.Request{Method: "CreateContainer", ContainerID: "b", Caller: context(traceID(7), 1)}, 0xC2}, // somebody else's
	} {
		if got := b.Cause(test.Request); got.TraceID() != ourTrace || got.SpanID() != spanID(test.want) {
			t.Errorf("%s of %s is caused by %v, want %x", test.Method, test.ContainerID, got.SpanID(), test.want)
		}
	}
	// Of two simultaneous polls each gets its own call.
	b.begun("Stats", "b", "", 0xC7, 30)
	b.begun("Stats", "b", "", 0xC8, 31)
	got := make(map[trace.SpanID]bool)
	for range 2 {
		got[b.Cause(calls.Request{Method: "StatsContainer", ContainerID: "b", Quiet: true}).SpanID()] = true
	}
	if !got[spanID(0xC7)] || !got[spanID(0xC8)] {
		t.Errorf("two requests are caused by %v", got)
	}
	b.setRoot(context(traceID(0xBB), 0xB0))
	if got := b.Cause(calls.Request{Method: "WaitProcess"}); got.TraceID() != traceID(0xBB) {
		t.Errorf("caused by %v", got)
	}
}

// TestCauseOfTheRuntime: a request goes below the runtime's own span, which arrives later or
// never.
func TestCauseOfTheRuntime(t *testing.T) {
	requested := func(b *bed) {
		t.Helper()
		b.AddRuntime(ofRuntime("createAssets", 7, 2, 1, 5, 6))
		b.begun("Create", "a", "", 0xC1, 0)
		caller := context(traceID(7), 3)
		got := b.Cause(calls.Request{Method: "CreateContainer", ContainerID: "a", Caller: caller})
		if got.TraceID() != ourTrace || got.SpanID() != spanID(3) || !got.IsSampled() {
			t.Fatalf("the cause is %v", got)
		}
		call := calls.Call{Method: "CreateContainer", ContainerID: "a", Start: time.Unix(0, t0+30*ms), SpanContext: context(ourTrace, 0xD1)}
		b.Request(call, caller)
		b.Add(of(spanOf("create_container", 0xAAAA, 10, 0xD1, 35, 45), "a", ""))
		call.End = time.Unix(0, t0+50*ms)
		b.Request(call, caller)
		b.Tick()
		b.want(10, ourTrace, 0xD1)
	}
	t.Run("that comes", func(t *testing.T) {
		b := newBed(t, nil)
		requested(b)
		b.AddRuntime(ofRuntime("ttrpc.CreateContainer", 7, 3, 4, 29, 51))
		b.Tick()
		b.want(3, ourTrace, 4) // at once
		b.AddRuntime(ofRuntime("createContainer", 7, 4, 1, 20, 60))
		b.called("Create", "a", "", 0xC1, 0, 100)
		b.AddRuntime(served("Create", ofRuntime("create", 7, 1, 99, 1, 99)))
		b.Tick()
		b.want(4, ourTrace, 1)
		b.want(1, ourTrace, 0xC1)
		b.Ended()
		if s := b.Stats(); s.Placeholders != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("that does not", func(t *testing.T) {
		b := newBed(t, nil)
		requested(b)
		b.AddRuntime(served("Create", ofRuntime("create", 7, 1, 99, 1, 99)))
		b.Ended()
		b.want(3, ourTrace, 0xC1)
		if s := b.get(3); s.Name != names.LostRuntimeSpan || s.StartTimeUnixNano != uint64(t0+30*ms) || s.EndTimeUnixNano != uint64(t0+50*ms) {
			t.Errorf("%v", s)
		}
	})
	t.Run("that is over", func(t *testing.T) {
		// Once the Go runtime has stopped tracing, its requests have the context of its last
		// span, or of its root.
		b := newBed(t, nil)
		b.called("Start", "a", "", 0xC1, 0, 100)
		b.AddRuntime(served("Start", ofRuntime("Start", 7, 1, 99, 1, 99)))
		for i := range uint64(2 * maxTraces * 4) {
			b.AddRuntime(served("Stats", ofRuntime("Stats", 7, 1000+i, 99, 100, 101)))
		}
		b.begun("Kill", "a", "", 0xC2, 5000)
		for _, last := range []uint64{1, 99} {
			if got := b.Cause(calls.Request{Method: "SignalProcess", ContainerID: "a", Caller: context(traceID(7), last)}); got.SpanID() != spanID(0xC2) {
				t.Errorf("the cause is %v", got)
			}
		}
		b.AddRuntime(ofRuntime("rootSpan", 8, 98, 0, 1, 400))
		if got := b.Cause(calls.Request{Method: "SignalProcess", ContainerID: "a", Caller: context(traceID(8), 98)}); got.SpanID() != spanID(0xC2) {
			t.Errorf("the cause is %v", got)
		}
	})
	t.Run("that turns out to be its root", func(t *testing.T) {
		b := newBed(t, nil)
		b.AddRuntime(ofRuntime("createAssets", 7, 2, 1, 5, 6))
		b.begun("Create", "a", "", 0xC1, 0)
		caller := context(traceID(7), 99)
		cause := b.Cause(calls.Request{Method: "CreateContainer", ContainerID: "a", Caller: caller})
		b.AddRuntime(served("Create", ofRuntime("create", 7, 1, 99, 1, 99)))
		b.Request(calls.Call{Method: "CreateContainer", ContainerID: "a", Start: time.Unix(0, t0), End: time.Unix(0, t0+ms), SpanContext: cause.WithSpanID(spanID(0xD1))}, caller)
		b.Ended()
		b.want(99, ourTrace, 0xC1)
	})
	t.Run("for callers of several traces", func(t *testing.T) {
		b := newBed(t, nil)
		b.AddRuntime(ofRuntime("createAssets", 7, 2, 1, 5, 6))
		caller := context(traceID(7), 3)
		b.begun("Start", "a", "", 0xC1, 0)
		b.Cause(calls.Request{Method: "StartContainer", ContainerID: "a", Caller: caller})
		other := context(traceID(0xBBBB), 0xC2)
		b.Call(calls.Call{Method: "Kill", ContainerID: "a", SpanContext: other, Start: time.Unix(0, t0)})
		if got := b.Cause(calls.Request{Method: "SignalProcess", ContainerID: "a", Caller: caller}); !got.Equal(other) {
			t.Errorf("the cause is %v, want %v: the runtime's span can be in one trace only", got, other)
		}
	})
	t.Run("however much is missing", func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.MaxAwaited = 1 })
		b.Add(spanOf("leaf", 8, 10, 11, 1, 2))
		b.pass(time.Minute)
		b.AddRuntime(ofRuntime("createAssets", 7, 2, 1, 5, 6))
		b.begun("Create", "a", "", 0xC1, 0)
		caller := context(traceID(7), 3)
		cause := b.Cause(calls.Request{Method: "CreateContainer", ContainerID: "a", Caller: caller})
		b.Request(calls.Call{Method: "CreateContainer", ContainerID: "a", Start: time.Unix(0, t0), End: time.Unix(0, t0+ms), SpanContext: cause.WithSpanID(spanID(0xD1))}, caller)
		b.Ended()
		b.want(3, ourTrace, 0xC1)
	})
	t.Run("quiet", func(t *testing.T) {
		b := newBed(t, nil)
		b.AddRuntime(ofRuntime("createAssets", 7, 2, 1, 5, 6))
		b.begun("Stats", "a", "", 0xC1, 0)
		if got := b.Cause(calls.Request{Method: "StatsContainer", ContainerID: "a", Caller: context(traceID(7), 3)}); got.SpanID() != spanID(0xC1) {
			t.Errorf("the cause is %v", got)
		}
	})
	t.Run("isolated", func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Isolated = true })
		b.AddRuntime(ofRuntime("createAssets", 7, 2, 1, 5, 6))
		b.begun("Create", "a", "", 0xC1, 0)
		if got := b.Cause(calls.Request{Method: "CreateContainer", ContainerID: "a", Caller: context(traceID(7), 3)}); got.SpanID() != spanID(0xC1) {
			t.Errorf("the cause is %v", got)
		}
	})
}

// TestRequestsTellTheTime: a request bounds the guest's clock more tightly than a call does,
// and a quiet request's work is quiet.
func TestRequestsTellTheTime(t *testing.T) {
	b := newBed(t, nil)
	b.called("Create", "a", "", 0xC1, 0, 10_000)
	b.Request(calls.Call{Method: "CreateContainer", SpanContext: context(ourTrace, 0xD1), Start: time.Unix(0, t0+5000*ms), End: time.Unix(0, t0+5100*ms)}, trace.SpanContext{})
	b.Request(calls.Call{Method: "ReadStdout", Quiet: true, SpanContext: context(ourTrace, 0xD2), Start: time.Unix(0, t0+5000*ms), End: time.Unix(0, t0+9100*ms)}, trace.SpanContext{})
	b.Add(spanOf("create_container", 0xAAAA, 10, 0xD1, 1000, 1090))
	b.Add(spanOf("read_stdout", 0xAAAA, 11, 0xD2, 1000, 5000))
	b.Tick()
	s := b.get(10)
	if s.StartTimeUnixNano < uint64(t0+5000*ms) || s.EndTimeUnixNano > uint64(t0+5100*ms) {
		t.Errorf("%v", s)
	}
	if b.drops[Quiet] != 1 {
		t.Errorf("dropped %v", b.drops)
	}
}
