package span

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// message returns a span as a collector reads it.
func message(tb testing.TB, s *Span) *tracepb.Span {
	tb.Helper()
	m := new(tracepb.Span)
	if err := proto.Unmarshal(s.AppendOTLP(nil), m); err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestNamesAreBounded(t *testing.T) {
	var n texts
	for i := range 3 * maxNames {
		if text := fmt.Sprint(i); n.get([]byte(text)) != text {
			t.Fatal(text)
		}
	}
	n.get(make([]byte, maxNameLength+1))
	if len(n.known) > maxNames {
		t.Errorf("%d names", len(n.known))
	}
	for s := range n.known {
		if len(s) > maxNameLength {
			t.Errorf("a name of %d bytes", len(s))
		}
	}
}

// A span can also be made by hand, and changed after it was decoded.
func TestSpanByHand(t *testing.T) {
	s := Span{
		TraceID: [16]byte{1}, SpanID: [8]byte{2}, ParentID: [8]byte{3}, TraceState: "a=1", TraceFlags: 1,
		Name: "lost agent span", Kind: tracepb.Span_SPAN_KIND_INTERNAL, Start: 4, End: 5,
	}
	s.AddBool("shimtrace.placeholder", true)
	s.AddString("sandbox", "s")
	s.AddLink([16]byte{6}, [8]byte{7})
	m := message(t, &s)
	want := &tracepb.Span{
		TraceId: s.TraceID[:], SpanId: s.SpanID[:], ParentSpanId: s.ParentID[:], TraceState: "a=1", Flags: 1,
		Name: "lost agent span", Kind: tracepb.Span_SPAN_KIND_INTERNAL, StartTimeUnixNano: 4, EndTimeUnixNano: 5,
		Attributes: []*commonpb.KeyValue{
			{Key: "shimtrace.placeholder", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}},
			{Key: "sandbox", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "s"}}},
		},
		Links: []*tracepb.Span_Link{{TraceId: append([]byte{6}, make([]byte, 15)...), SpanId: append([]byte{7}, make([]byte, 7)...)}},
	}
	if !proto.Equal(m, want) {
		t.Errorf("got  %v\nwant %v", m, want)
	}
}
