package collate

import (
	"math"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
)

// TestImpossibleTimes: no guest's span is drawn before its sandbox began or after it arrived;
// its own times stay as attributes.
func TestImpossibleTimes(t *testing.T) {
	in2140 := uint64(time.Date(2140, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	began := t0 - 1000*ms
	for name, times := range map[string][2]uint64{
		"1970":           {0, 1000},
		"2140":           {in2140, in2140 + 1000},
		"the end":        {math.MaxUint64, math.MaxUint64},
		"1970 to 2140":   {0, in2140},
		"1970 to now":    {0, uint64(t0)},
		"now to 2140":    {uint64(t0), in2140},
		"2140 to 1970":   {in2140, 0},
		"now to 1970":    {uint64(t0), 0},
		"before it":      {uint64(began - 20*s1), uint64(began - 19*s1)},
		"from before it": {uint64(began - 20*s1), uint64(t0)},
	} {
		for _, rpc := range []string{"create_container", "check", "baremount", "root-span", "x", "set_guest_date_time"} {
			for _, isolated := range []bool{false, true} {
				t.Run(name+"/"+rpc, func(t *testing.T) {
					b := newBed(t, func(o *Options) { o.Isolated, o.Began = isolated, time.Unix(0, began) })
					b.called("Create", "a", "", 0xC1, 0, 100)
					b.Add(&span.Span{TraceID: traceID(7), SpanID: spanID(2), ParentID: spanID(1), Name: "leaf", Start: times[0], End: times[1]})
					b.Add(of(&span.Span{TraceID: traceID(7), SpanID: spanID(1), Name: rpc, Start: times[0], End: times[1]}, "a", ""))
					arrived := b.now
					b.pass(time.Minute)
					b.Ended()
					for id := uint64(1); id <= 2; id++ {
						s := b.get(id)
						if at := drawnAt(s); !at.Within(calls.Period{Start: began, End: arrived}) || at.End < at.Start {
							t.Errorf("%s is drawn from %v to %v after the sandbox began, it arrived after %v", s.Name,
								time.Duration(at.Start-began), time.Duration(at.End-began), time.Duration(arrived-began))
						}
						from, to := attribute(s, names.OriginalStart).GetIntValue(), attribute(s, names.OriginalEnd).GetIntValue()
						if uint64(from) != min(times[0], math.MaxInt64) || uint64(to) != min(times[1], math.MaxInt64) {
							t.Errorf("%s was from %d to %d, it says %d to %d", s.Name, times[0], times[1], from, to)
						}
					}
				})
			}
		}
	}
}

// TestLifeLong: a life-long span is drawn from the beginning of the sandbox, or of the window,
// and marked.
func TestLifeLong(t *testing.T) {
	began := time.Unix(0, t0)
	for name, tc := range map[string]struct {
		change     func(b *bed)
		start, end int64 // in ms after t0
	}{
		"of the sandbox": {func(*bed) {}, 0, 90_000},
		"of a window": {func(b *bed) {
			b.opts.OnDemand = true
			b.SetRoot(context(ourTrace, 0xB1), began.Add(40*time.Second))
		}, 40_000, 90_000},
		"of one that has ended": {func(b *bed) {
			b.opts.OnDemand = true
			b.SetRoot(context(ourTrace, 0xB1), began.Add(40*time.Second))
			b.EndRoot(began.Add(52 * time.Second))
		}, 40_000, 52_000},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, func(o *Options) { o.Began = began })
			tc.change(b)
			b.Add(spanOf("start_sandbox", 7, 2, 1, -20_000, 90_000))
			b.Add(spanOf("root-span", 7, 1, 0, -20_000, 90_000))
			b.Add(spanOf("watch_uevents", 8, 3, 0, -19_000, 90_000))
			b.AddRuntime(ofRuntime("rootSpan", 9, 4, 0, -20_000, 90_000))
			b.Ended()
			for id := uint64(1); id <= 4; id++ {
				b.drawn(id, tc.start, tc.end)
				if _, moved := b.original(id); !moved {
					t.Errorf("span %d does not say what it was", id)
				}
			}
			if s := b.get(4); !attribute(s, names.Clipped).GetBoolValue() {
				t.Errorf("it does not say that it is clipped: %v", s)
			}
		})
	}
}

// TestClockIsKnownWhileOff: the host's clock decides what belongs to a window. The offset is
// learned while nothing is recorded, from calls without spans.
func TestClockIsKnownWhileOff(t *testing.T) {
	b := newBed(t, func(o *Options) { o.OnDemand, o.Root = true, rootSpan.WithTraceFlags(0) })
	b.Call(calls.Call{Method: "Create", ContainerID: "a", Start: time.Unix(0, t0), End: time.Unix(0, t0+100*ms)})
	b.Add(of(spanOf("create_container", 7, 1, 0, 3000, 3090), "a", ""))
	window := context(traceID(0xBB), 0xBB)
	b.SetRoot(window, time.Unix(0, t0+10*s1))
	b.EndRoot(time.Unix(0, t0+20*s1))
	b.Add(spanOf("check", 8, 2, 0, 12_500, 12_600)) // before it
	b.Add(spanOf("check", 9, 3, 0, 13_500, 13_600))
	b.Add(spanOf("check", 9, 4, 0, 22_500, 22_600))
	b.Add(spanOf("check", 9, 5, 0, 23_500, 23_600)) // after it
	b.Ended()
	b.balance()
	if len(b.out) != 2 || b.drops[Off] != 3 {
		t.Errorf("%d spans are drawn, dropped %v", len(b.out), b.drops)
	}
	b.want(3, window.TraceID(), 0xBB)
	b.want(4, window.TraceID(), 0xBB)
	b.drawn(3, 10_510, 10_610)
}
