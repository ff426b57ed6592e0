package collate

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// TestWhole: calls, requests, and spans of the runtime and the agent arrive in any order, with
// any of them missing, with any guest's clock, while tracing is switched on and off. Every span
// is sent or counted; a sent span is below what it names, in the same trace, and is drawn at a
// possible time.
func TestWhole(t *testing.T) {
	for seed := range uint64(3000) {
		l := newLife(t, seed)
		for range 5 + l.IntN(100) {
			l.now += int64(l.IntN(20)) * ms
			l.step()
		}
		for len(l.open) > 0 {
			l.end()
		}
		l.Ended()
		l.balance()
		if s := l.Stats(); s.Held != 0 || s.Awaited != 0 {
			t.Errorf("%+v", s)
		}
		for _, s := range l.out {
			if err := l.whole(s); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// life is a random life of a sandbox.
type life struct {
	*bed
	*rand.Rand
	isolated bool
	root     trace.SpanContext              // the current one
	calls    map[trace.SpanID]trace.TraceID // and requests
	requests []trace.SpanContext
	open     []func()
	n        uint64
	off      bool  // tracing is switched off
	guest    int64 // how far the guest's clock is ahead
}

func newLife(t *testing.T, seed uint64) *life {
	l := &life{Rand: rand.New(rand.NewPCG(seed, 0)), calls: map[trace.SpanID]trace.TraceID{rootSpan.SpanID(): ourTrace}, root: rootSpan, n: 0xC00}
	l.isolated = l.IntN(2) == 1
	l.bed = newBed(t, func(o *Options) {
		o.Isolated, o.QuietSpans, o.Began = l.isolated, []string{"AddEndpoints"}, time.Unix(0, t0)
		if o.OnDemand = l.IntN(3) == 0; o.OnDemand {
			o.Root, l.off = rootSpan.WithTraceFlags(0), true
		}
		if l.IntN(3) == 0 {
			o.MaxSpans, o.MaxAwaited = 6, 4
		}
	})
	l.setClock()
	return l
}

// setClock sets the guest's clock.
func (l *life) setClock() {
	l.guest = []int64{0, 0, 140 * ms, -385 * ms, 3600 * s1, -3600 * s1, -t0}[l.IntN(7)]
}

// turn sets another root, or switches tracing.
func (l *life) turn() {
	switch {
	case l.opts.OnDemand && !l.off:
		l.EndRoot(time.Unix(0, l.now))
		l.off = true
	default:
		l.n++
		l.root = context(traceID(l.n), l.n)
		l.calls[l.root.SpanID()] = l.root.TraceID()
		l.setRoot(l.root)
		l.off = false
	}
}

func pick(l *life, of ...string) string { return of[l.IntN(len(of))] }

func (l *life) method() string {
	return pick(l, "Create", "Start", "Kill", "Delete", "Stats", "State", "Wait")
}

// caller returns the id of a runtime's span, which may never arrive.
func (l *life) caller() uint64 { return 1 + l.Uint64N(12) }

func (l *life) agents() uint64 { return 101 + l.Uint64N(15) }

func (l *life) step() {
	switch l.IntN(9) {
	case 0:
		if l.IntN(8) == 0 || l.opts.OnDemand && l.IntN(3) == 0 {
			l.turn()
		}
		if l.IntN(20) == 0 {
			l.setClock()
		}
		c := calls.Call{Method: l.method(), ContainerID: pick(l, "a", "b")}
		l.begin(c, l.root.TraceID(), l.Call)
	case 1:
		if l.off {
			return // requests are not observed
		}
		var caller trace.SpanContext
		if l.IntN(2) == 0 {
			caller = context(traceID(7), l.caller())
		}
		c := calls.Call{Method: pick(l, "CreateContainer", "StartContainer", "SignalProcess", "WaitProcess", "Check"), ContainerID: pick(l, "", "a", "b")}
		cause := l.Cause(calls.Request{Method: c.Method, ContainerID: c.ContainerID, Caller: caller})
		l.requests = append(l.requests, l.begin(c, cause.TraceID(), func(c calls.Call) { l.Request(c, caller) }))
	case 2, 3:
		l.end()
	case 4, 5:
		l.agent()
	case 6, 7:
		l.runtime()
	case 8:
		l.pass(time.Duration(l.IntN(17)) * time.Second)
		l.Tick()
	}
}

func (l *life) begin(c calls.Call, in trace.TraceID, tell func(calls.Call)) trace.SpanContext {
	l.n++
	id := l.n
	c.Start = time.Unix(0, l.now)
	recorded := func(in trace.TraceID) {
		c.SpanContext = context(in, id)
		l.calls[c.SpanContext.SpanID()] = in
	}
	if !l.off {
		recorded(in)
	}
	tell(c)
	l.open = append(l.open, func() {
		c.End, c.Failed = time.Unix(0, l.now), l.IntN(4) == 0
		if !c.SpanContext.IsValid() && !l.off {
			recorded(l.root.TraceID()) // begun before
		}
		tell(c)
	})
	return c.SpanContext
}

func (l *life) end() {
	if len(l.open) == 0 {
		return
	}
	i := l.IntN(len(l.open))
	l.open[i]()
	l.open = append(l.open[:i], l.open[i+1:]...)
}

// times returns the times of a span that ends now, in ms after t0.
func (l *life) times() (start, end int64) {
	end = (l.now - t0) / ms
	return end - int64(l.IntN(30)), end
}

func (l *life) agent() {
	name := pick(l, "create_container", "signal_process", "stats_container", "wait_process", "check", "baremount", "leaf", "do_create_container", "root-span")
	start, end := l.times()
	s := spanOf(name, 7+l.Uint64N(3), l.agents(), 0, start, end)
	s.Start, s.End = uint64(int64(s.Start)+l.guest), uint64(int64(s.End)+l.guest)
	switch {
	case l.IntN(4) == 0:
	case !isRequest(name) || l.IntN(3) == 0:
		s.ParentID = spanID(l.agents())
	case !l.isolated && len(l.requests) > 0 && l.IntN(2) == 0:
		sc := l.requests[l.IntN(len(l.requests))]
		s.TraceID, s.ParentID = sc.TraceID(), sc.SpanID()
	default: // the runtime traces, but its requests are not relayed
		s.TraceID, s.ParentID = traceID(7), spanID(l.caller())
	}
	l.Add(of(s, pick(l, "", "a", "b"), ""))
}

func (l *life) runtime() {
	start, end := l.times()
	parent := l.caller()
	if l.IntN(4) == 0 {
		parent = 0
	}
	var s *span.Span
	if l.IntN(2) == 0 {
		m := l.method()
		s = served(m, ofRuntime(m, 7, l.caller(), parent, start, end))
	} else {
		s = ofRuntime(pick(l, "createAssets", "ttrpc.CreateContainer", "ttrpc.StatsContainer", "AddEndpoints", "rootSpan"), 7, l.caller(), parent, start, end)
	}
	s.Failed = l.IntN(8) == 0
	l.AddRuntime(s)
}

// whole reports what is wrong with a span or above it.
func (l *life) whole(s *tracepb.Span) error {
	possible := calls.Period{Start: t0, End: l.now}
	if at := drawnAt(s); !at.Within(possible) || at.End < at.Start {
		return fmt.Errorf("%s %x is drawn from %v to %v, possible is %v to %v", s.Name, s.SpanId, time.Duration(at.Start-t0), time.Duration(at.End-t0), time.Duration(possible.Start-t0), time.Duration(possible.End-t0))
	}
	for depth := 0; len(s.ParentSpanId) > 0; depth++ {
		in, ok := l.calls[parentOf(s)]
		above := l.above(s)
		if above != nil {
			in, ok = trace.TraceID(above.TraceId), true
		}
		switch {
		case !ok:
			return fmt.Errorf("%s %x: what is above it, %x, is missing", s.Name, s.SpanId, s.ParentSpanId)
		case in != trace.TraceID(s.TraceId):
			return fmt.Errorf("%s %x is in trace %x, what is above it in %v", s.Name, s.SpanId, s.TraceId, in)
		case depth > 100:
			return fmt.Errorf("%s %x is below itself", s.Name, s.SpanId)
		case above == nil:
			return nil
		}
		s = above
	}
	return nil
}
