package collate

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/names"
)

// quietSpans are the runtime's spans that are quiet by default.
func quietSpans(o *Options) {
	o.QuietSpans = []string{"AddEndpoints"}
	for _, request := range append(calls.QuietRequests(quietMethods), "ReadStdout", "ReadStderr", "WaitProcess", "Check") {
		o.QuietSpans = append(o.QuietSpans, kata.RequestPrefix+request)
	}
}

func drawnAt(s *tracepb.Span) calls.Period {
	return calls.Period{Start: int64(s.StartTimeUnixNano), End: int64(s.EndTimeUnixNano)}
}

// outside returns the spans and calls that are drawn outside of their parents. The roots, which
// are moments or shorter than their children, contain everything.
func (b *bed) outside(made []calls.Call) (all []string) {
	times := make(map[trace.SpanID]calls.Period)
	for _, c := range made {
		times[c.SpanContext.SpanID()] = calls.Period{Start: c.Start.UnixNano(), End: c.End.UnixNano()}
	}
	for id, s := range b.by {
		times[id] = drawnAt(s)
	}
	for _, s := range b.out {
		above, known := times[parentOf(s)]
		if at := drawnAt(s); known && !at.Within(above) {
			all = append(all, s.Name)
		}
	}
	slices.Sort(all)
	return all
}

// TestPodsNest: in the captured pods, whose guests are 140 ms ahead and 1.4 s behind, every
// span is drawn within its parent.
func TestPodsNest(t *testing.T) {
	for name, tc := range map[string]struct {
		outside []string
		offset  calls.Period  // of the guest's clock, in ms
		known   time.Duration // when that is known
	}{
		captured.Go: {nil, calls.Period{Start: -147, End: -136}, 0},
		// runtime-rs waits for an exec's process by a task that begins within its Start and
		// names nothing above it. The pod's first requests may have been at any time of its
		// Create.
		captured.Rust: {[]string{"wait_process"}, calls.Period{Start: 1310, End: 1396}, 19500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			p := loadPod(t, name)
			b := newBed(t, quietSpans)
			p.play(b)
			if got := b.outside(p.calls); !slices.Equal(got, tc.outside) {
				t.Errorf("outside of what they are below: %q, want %q", got, tc.outside)
			}
			first := slices.MinFunc(p.calls, func(x, y calls.Call) int { return x.Start.Compare(y.Start) }).Start
			moved := 0
			for _, s := range p.Agent {
				drawn := b.by[s.SpanID]
				if drawn == nil || !isRequest(s.Name) {
					continue
				}
				from := attribute(drawn, names.OriginalStart).GetIntValue()
				if from == 0 || time.Unix(0, from).Sub(first) < tc.known {
					continue
				}
				moved++
				if by := (int64(drawn.StartTimeUnixNano) - from) / ms; by < tc.offset.Start || by > tc.offset.End {
					t.Errorf("%s was moved by %d ms", s.Name, by)
				}
			}
			if moved < 9 {
				t.Errorf("%d requests were moved", moved)
			}
		})
	}
}

// TestWindowsOfAPod: for any recorded part of a captured pod's life, nothing is drawn outside
// of the window or of its parent, except that open calls are drawn to their end.
func TestWindowsOfAPod(t *testing.T) {
	const length = 12 * time.Second
	for _, name := range []string{captured.Go, captured.Rust} {
		t.Run(name, func(t *testing.T) {
			for from := time.Duration(0); from < 45*time.Second; from += 1500 * time.Millisecond {
				p := loadPod(t, name) // a collator owns the spans that it gets
				slices.SortFunc(p.calls, func(x, y calls.Call) int { return x.Start.Compare(y.Start) })
				began := p.calls[0].Start.Add(from)
				ended := began.Add(length)
				window := context(traceID(0xBB), 0xBB)
				b := newBed(t, func(o *Options) {
					quietSpans(o)
					o.OnDemand, o.Sandbox = true, p.Sandbox
					o.Root = rootSpan.WithTraceFlags(0)
				})
				var made []calls.Call
				for i, c := range p.calls {
					if c.SpanContext = context(window.TraceID(), uint64(0xC000+i)); c.Start.Before(ended) && c.End.After(began) {
						made = append(made, c)
					}
				}
				p.playIn(b, made,
					event{began.UnixNano(), func() { b.SetRoot(window, began) }},
					event{ended.UnixNano(), func() { b.EndRoot(ended) }})
				b.balance()
				limits := calls.Period{Start: began.UnixNano(), End: ended.UnixNano()}
				for _, c := range made {
					limits.End = max(limits.End, c.End.UnixNano())
				}
				clipped := 0
				for _, s := range b.out {
					if at := drawnAt(s); !at.Within(limits) {
						t.Errorf("from %v on: %s is drawn from %v to %v", from, s.Name,
							time.Duration(at.Start-limits.Start), time.Duration(at.End-limits.Start))
					}
					if attribute(s, names.Clipped).GetBoolValue() {
						clipped++
						if attribute(s, names.OriginalStart) == nil {
							t.Errorf("%s is clipped and does not say what it was", s.Name)
						}
					}
					if err := whole(b, s, window, made); err != nil {
						t.Errorf("from %v on: %v", from, err)
					}
				}
				for _, outside := range b.outside(onlyWithin(made, began)) {
					if !strings.Contains(outside, "wait_process") {
						t.Errorf("from %v on: %s is outside of what it is below", from, outside)
					}
				}
				if len(b.out) > 0 && clipped == 0 && from > 20*time.Second && name == captured.Go {
					t.Errorf("from %v on: nothing is clipped", from)
				}
			}
		})
	}
}

// onlyWithin returns the calls that began during a window: what they caused is not drawn before
// it.
func onlyWithin(made []calls.Call, began time.Time) (within []calls.Call) {
	for _, c := range made {
		if !c.Start.Before(began) {
			within = append(within, c)
		}
	}
	return within
}

// whole reports what is wrong above a span of a window.
func whole(b *bed, s *tracepb.Span, root trace.SpanContext, made []calls.Call) error {
	if trace.TraceID(s.TraceId) != root.TraceID() {
		return fmt.Errorf("%s is in trace %x", s.Name, s.TraceId)
	}
	parent := parentOf(s)
	if parent == root.SpanID() || b.by[parent] != nil || slices.ContainsFunc(made, func(c calls.Call) bool { return c.SpanContext.SpanID() == parent }) {
		return nil
	}
	return fmt.Errorf("%s is an orphan below %v", s.Name, parent)
}
