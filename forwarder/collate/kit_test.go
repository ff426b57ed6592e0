package collate

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/forwarder/agentwire"
	"github.com/shimtrace/shimtrace/forwarder/runtimespan"
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

// bed is a Collator with what surrounds it.
type bed struct {
	*Collator
	t     testing.TB
	now   int64
	out   []*tracepb.Span
	by    map[trace.SpanID]*tracepb.Span
	drops map[Reason]int
}

func newBed(t testing.TB, change func(*Options)) *bed {
	b := &bed{t: t, now: t0, by: make(map[trace.SpanID]*tracepb.Span), drops: make(map[Reason]int)}
	opts := Options{
		Root: rootSpan,
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key:   "service.name",
			Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "kata-agent"}},
		}}},
		Runtime: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key:   "service.name",
			Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "kata"}},
		}}},
		Quiet: quietMethods,
		Slow:  500 * time.Millisecond,
		Sink:  b.take,
		Drop:  func(r Reason, n int) { b.drops[r] += n },
		Now:   func() time.Time { return time.Unix(0, b.now) },
	}
	if change != nil {
		change(&opts)
	}
	b.Collator = New(opts)
	return b
}

func (b *bed) take(all []*tracepb.ResourceSpans) {
	for _, rs := range all {
		for _, ss := range rs.ScopeSpans {
			want := map[string]string{ScopeName: "kata-agent", RuntimeScopeName: "kata"}[ss.Scope.Name]
			if got := rs.GetResource().GetAttributes(); len(got) != 1 || got[0].Value.GetStringValue() != want {
				b.t.Errorf("spans of scope %s were sent with the resource %v", ss.Scope.Name, got)
			}
			for _, s := range ss.Spans {
				if b.by[trace.SpanID(s.SpanId)] != nil {
					b.t.Errorf("span %x was sent twice", s.SpanId)
				}
				b.by[trace.SpanID(s.SpanId)] = s
				b.out = append(b.out, s)
			}
		}
	}
}

// pass lets time pass, ticking.
func (b *bed) pass(d time.Duration) {
	for end := b.now + int64(d); b.now < end; {
		b.now = min(b.now+s1, end)
		b.Tick()
	}
}

// span makes a span of the guest's that began and ended so many ms after t0.
func span(name string, trace, id, parent uint64, start, end int64) *agentwire.Span {
	return &agentwire.Span{
		TraceID: traceID(trace), SpanID: spanID(id), ParentID: spanID(parent),
		Name: name, Start: uint64(t0 + start*ms), End: uint64(t0 + end*ms),
	}
}

// ofRuntime makes a span of the runtime's.
func ofRuntime(name string, trace, id, parent uint64, start, end int64) *runtimespan.Span {
	return &runtimespan.Span{Span: *span(name, trace, id, parent, start, end)}
}

// served says which call a span of the runtime's is the serving of.
func served(method string, s *runtimespan.Span) *runtimespan.Span {
	s.Method = method
	return s
}

// of says which container and exec a span is about.
func of(s *agentwire.Span, container, exec string) *agentwire.Span {
	s.ContainerID, s.ExecID = container, exec
	return s
}

// called tells of a call that began and ended so many ms after t0, with the span
// id given.
func (b *bed) called(method, container, exec string, id uint64, start, end int64) {
	b.calledIn(ourTrace, method, container, exec, id, start, end)
}

func (b *bed) calledIn(in trace.TraceID, method, container, exec string, id uint64, start, end int64) {
	b.Call(Call{
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

// balance checks that every span added has been sent, dropped or is held.
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

// event is something that happens to a bed, at a time in Unix nanoseconds.
type event struct {
	at int64
	do func()
}

// live has all happen in the order of its time, which passes meanwhile.
func (b *bed) live(events []event) {
	slices.SortStableFunc(events, func(x, y event) int { return int(x.at - y.at) })
	b.now = events[0].at
	for _, e := range events {
		b.pass(time.Duration(e.at - b.now))
		e.do()
	}
}

// lives returns the beginning and the end of calls.
func (b *bed) lives(calls []Call) (events []event) {
	for _, c := range calls {
		begun := c
		begun.End, begun.Failed = time.Time{}, false
		events = append(events,
			event{c.Start.UnixNano(), func() { b.Call(begun) }},
			event{c.End.UnixNano(), func() { b.Call(c) }})
	}
	return events
}

// arrivals returns the coming of the agent's spans, some seconds after their end.
func (b *bed) arrivals(spans []*agentwire.Span) (events []event) {
	at := int64(0)
	for _, s := range spans {
		at = max(at, int64(s.End)+2500*ms)
		events = append(events, event{at, func() { b.Add(s) }})
	}
	return events
}
