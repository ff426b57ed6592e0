package collate

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
)

// t0 is when the tests' sandboxes begin, in Unix nanoseconds.
const t0 = int64(1_800_000_000_000_000_000)

const (
	ms = int64(time.Millisecond)
	s1 = int64(time.Second)
)

var (
	quietMethods = []string{"State", "Stats", "Pids", "Connect", "Wait"}
	ourTrace     = traceID(0xAAAA)
	rootSpan     = context(ourTrace, 0xA0)
)

func traceID(n uint64) (id trace.TraceID) {
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

func spanID(n uint64) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], n)
	return id
}

func context(id trace.TraceID, span uint64) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: spanID(span), TraceFlags: trace.FlagsSampled})
}

// bed is a Collator with its surroundings.
type bed struct {
	*Collator
	t     testing.TB
	now   int64
	out   []*tracepb.Span
	by    map[trace.SpanID]*tracepb.Span
	in    map[trace.TraceID]map[trace.SpanID]*tracepb.Span // an id may be in two traces
	drops map[Reason]int
	later []func()              // events to come
	named map[trace.SpanID]bool // as parents of requests, by contexts that these have
}

func newBed(t testing.TB, change func(*Options)) *bed {
	b := &bed{t: t, now: t0, by: make(map[trace.SpanID]*tracepb.Span), in: make(map[trace.TraceID]map[trace.SpanID]*tracepb.Span), drops: make(map[Reason]int), named: make(map[trace.SpanID]bool)}
	opts := Options{
		Options: calls.Options{
			Root:  rootSpan,
			Quiet: quietMethods,
			Slow:  500 * time.Millisecond,
			Now:   func() time.Time { return time.Unix(0, b.now) },
		},
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key:   "service.name",
			Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "kata-agent"}},
		}}},
		Runtime: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key:   "service.name",
			Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "kata"}},
		}}},
		Sink: b.take,
		Drop: func(r Reason, n int) { b.drops[r] += n },
	}
	if change != nil {
		change(&opts)
	}
	b.Collator = New(opts)
	return b
}

func (b *bed) take(resource *resourcepb.Resource, scope string, spans []byte, n int) {
	want := map[string]string{names.AgentScope: "kata-agent", names.RuntimeScope: "kata"}[scope]
	if got := resource.GetAttributes(); len(got) != 1 || got[0].Value.GetStringValue() != want {
		b.t.Errorf("spans of scope %s were sent with the resource %v", scope, got)
	}
	all := new(tracepb.ScopeSpans)
	if err := proto.Unmarshal(spans, all); err != nil || len(all.Spans) != n {
		b.t.Fatalf("%d spans of %d: %v", len(all.Spans), n, err)
	}
	for _, s := range all.Spans {
		of := b.in[trace.TraceID(s.TraceId)]
		if of == nil {
			of = make(map[trace.SpanID]*tracepb.Span)
			b.in[trace.TraceID(s.TraceId)] = of
		}
		if of[trace.SpanID(s.SpanId)] != nil {
			b.t.Errorf("span %x was sent twice", s.SpanId)
		}
		of[trace.SpanID(s.SpanId)] = s
		b.by[trace.SpanID(s.SpanId)] = s
		b.out = append(b.out, s)
	}
}

// pass lets time pass, ticking.
func (b *bed) pass(d time.Duration) {
	for end := b.now + int64(d); b.now < end; {
		b.now = min(b.now+s1, end)
		b.Tick()
	}
}

// Add adds a span once it has ended, unless that is hours away.
func (b *bed) Add(s *span.Span) {
	b.reach(time.Unix(0, int64(s.End)))
	b.Collator.Add(s)
}

func (b *bed) AddRuntime(s *span.Span) {
	b.reach(time.Unix(0, int64(s.End)))
	b.Collator.AddRuntime(s)
}

// Call and Request report what has happened or begins.
func (b *bed) Call(c calls.Call) {
	b.reach(c.Start, c.End)
	b.Collator.Call(c)
}

func (b *bed) Request(c calls.Call, caller trace.SpanContext) {
	b.reach(c.Start, c.End)
	b.Collator.Request(c, caller)
}

func (b *bed) Cause(r calls.Request) trace.SpanContext {
	cause := b.Collator.Cause(r)
	if cause.IsValid() && cause.SpanID() == r.Caller.SpanID() {
		b.named[cause.SpanID()] = true
	}
	return cause
}

// nodes returns how many spans wait or are missing above those that do; orphans how many tops
// wait.
func (b *bed) nodes() int { return len(b.runtime.waiting.nodes) + len(b.agent.waiting.nodes) }

func (b *bed) orphans() (n int) {
	for _, s := range []*source{&b.runtime, &b.agent} {
		for top := s.waiting.oldest; top != nil; top = top.younger {
			n++
		}
	}
	return n
}

// isKnown reports whether an agent's span has a meaningful name, isRequest whether it is a
// request's.
func isKnown(name string) bool {
	s := calls.AgentSpan(&span.Span{Name: name})
	return !s.IsThread()
}

func isRequest(name string) bool {
	s := calls.AgentSpan(&span.Span{Name: name})
	return s.IsRequest()
}

// reach lets time pass to moments that are not hours away.
func (b *bed) reach(moments ...time.Time) {
	for _, m := range moments {
		if !m.IsZero() && m.UnixNano() < t0+int64(time.Hour) {
			b.now = max(b.now, m.UnixNano())
		}
	}
}

// setRoot sets another root from now on.
func (b *bed) setRoot(root trace.SpanContext) { b.SetRoot(root, time.Unix(0, b.now)) }

// spanOf makes a guest's span from start to end in ms after t0.
func spanOf(name string, trace, id, parent uint64, start, end int64) *span.Span {
	return &span.Span{
		TraceID: traceID(trace), SpanID: spanID(id), ParentID: spanID(parent),
		Name: name, Start: uint64(t0 + start*ms), End: uint64(t0 + end*ms),
	}
}

// ofRuntime makes a runtime's span.
func ofRuntime(name string, trace, id, parent uint64, start, end int64) *span.Span {
	return spanOf(name, trace, id, parent, start, end)
}

// served says which call a runtime's span serves.
func served(method string, s *span.Span) *span.Span {
	s.Method = method
	return s
}

// of says which container and exec a span is about.
func of(s *span.Span, container, exec string) *span.Span {
	s.ContainerID, s.ExecID = container, exec
	return s
}

// called reports a call with the span id, from start to end in ms after t0.
func (b *bed) called(method, container, exec string, id uint64, start, end int64) {
	b.calledIn(ourTrace, method, container, exec, id, start, end)
}

func (b *bed) calledIn(in trace.TraceID, method, container, exec string, id uint64, start, end int64) {
	b.Call(calls.Call{
		Method: method, ContainerID: container, ExecID: exec, SpanContext: context(in, id),
		Start: time.Unix(0, t0+start*ms), End: time.Unix(0, t0+end*ms),
	})
}

// get returns a span that must have been sent.
func (b *bed) get(id uint64) *tracepb.Span {
	b.t.Helper()
	s := b.by[spanID(id)]
	if s == nil {
		b.t.Fatalf("span %x was not sent; dropped: %v", id, b.drops)
	}
	return s
}

// want checks a span's trace and parent.
func (b *bed) want(id uint64, in trace.TraceID, parent uint64) {
	b.t.Helper()
	s := b.get(id)
	if trace.TraceID(s.TraceId) != in {
		b.t.Errorf("span %x (%s) is in trace %x, want %v", id, s.Name, s.TraceId, in)
	}
	var got uint64
	if len(s.ParentSpanId) > 0 {
		got = binary.BigEndian.Uint64(s.ParentSpanId)
	}
	if got != parent {
		b.t.Errorf("span %x (%s) is below %x, want %x", id, s.Name, got, parent)
	}
}

// drawn checks a span's drawn times, in ms after t0.
func (b *bed) drawn(id uint64, start, end int64) {
	b.t.Helper()
	s := b.get(id)
	if from, to := int64(s.StartTimeUnixNano)-t0, int64(s.EndTimeUnixNano)-t0; from != start*ms || to != end*ms {
		b.t.Errorf("span %x (%s) is drawn from %v to %v, want %d ms to %d ms", id, s.Name, time.Duration(from), time.Duration(to), start, end)
	}
}

// above returns a span's parent if that was sent: in the span's trace, or wrongly in another. A
// runtime's span that the guest named first may be in another trace rightly, if the sandbox is
// isolated or a request names it.
func (b *bed) above(s *tracepb.Span) *tracepb.Span {
	if above := b.in[trace.TraceID(s.TraceId)][parentOf(s)]; above != nil || b.named[parentOf(s)] || b.opts.Isolated {
		return above
	}
	return b.by[parentOf(s)]
}

func parentOf(s *tracepb.Span) (id trace.SpanID) {
	copy(id[:], s.ParentSpanId)
	return id
}

func attribute(s *tracepb.Span, key string) *commonpb.AnyValue {
	for _, kv := range s.Attributes {
		if kv.Key == key {
			return kv.Value
		}
	}
	return nil
}

// balance checks that every added span is sent, dropped or held.
func (b *bed) balance() {
	b.t.Helper()
	s := b.Stats()
	if s.Added != s.Sent+s.Dropped+uint64(s.Held) {
		b.t.Errorf("%d spans were added, but %d sent, %d dropped and %d held", s.Added, s.Sent, s.Dropped, s.Held)
	}
	dropped := 0
	for _, n := range b.drops {
		dropped += n
	}
	if uint64(dropped) != s.Dropped {
		b.t.Errorf("%d spans were told as dropped, %d counted", dropped, s.Dropped)
	}
}

// event happens to a bed at a time in Unix nanoseconds.
type event struct {
	at int64
	do func()
}

// live runs all events in the order of their times, and lets time pass.
func (b *bed) live(events []event) {
	slices.SortStableFunc(events, func(x, y event) int { return int(x.at - y.at) })
	b.now = events[0].at
	for _, e := range events {
		b.pass(time.Duration(e.at - b.now))
		e.do()
	}
}

// lives returns the beginnings and ends of calls as events.
func (b *bed) lives(told []calls.Call) (events []event) {
	for _, c := range told {
		begun := c
		begun.End, begun.Failed = time.Time{}, false
		events = append(events,
			event{c.Start.UnixNano(), func() {
				ever := calls.RuntimeSpan(&span.Span{End: math.MaxInt64})
				if _, _, on := b.Draw(&ever, new(calls.Cause)); !on {
					begun.SpanContext = trace.SpanContext{} // until its end
				}
				b.Call(begun)
			}},
			event{c.End.UnixNano(), func() { b.Call(c) }})
	}
	return events
}

// arrivals returns the arrivals of the agent's spans, some seconds after their ends.
func (b *bed) arrivals(spans []*span.Span) (events []event) {
	at := int64(0)
	for _, s := range spans {
		at = max(at, int64(s.End)+2500*ms)
		events = append(events, event{at, func() { b.Add(s) }})
	}
	return events
}
