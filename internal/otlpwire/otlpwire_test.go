package otlpwire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// TestOpenClose: a message is the same as one whose length is known before.
func TestOpenClose(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 1<<14 - 1, 1 << 14, 1<<21 - 1, 1 << 21, 1 << 22} {
		body := bytes.Repeat([]byte{'x'}, n)
		b, at := Open([]byte("before"), SpanEvents)
		b = Close(append(b, body...), at)
		b = append(b, "behind"...)
		want := append(AppendBytes([]byte("before"), SpanEvents, body), "behind"...)
		if !bytes.Equal(b, want) {
			t.Errorf("a message of %d bytes is not the same", n)
		}
	}
}

// TestText: what is no UTF-8 is replaced.
func TestText(t *testing.T) {
	b := AppendText(nil, SpanName, "a\xffb")
	_, _, n := protowire.ConsumeTag(b)
	if s, _ := protowire.ConsumeString(b[n:]); s != "a\uFFFDb" {
		t.Errorf("%q", s)
	}
}

// TestFieldNumbers compares the field numbers, and the flags, with OTLP's.
func TestFieldNumbers(t *testing.T) {
	for _, message := range []struct {
		of      proto.Message
		numbers map[protoreflect.Name]protowire.Number
	}{
		{(*tracepb.TracesData)(nil), map[protoreflect.Name]protowire.Number{"resource_spans": DataResourceSpans}},
		{(*collectorpb.ExportTraceServiceRequest)(nil), map[protoreflect.Name]protowire.Number{"resource_spans": DataResourceSpans}},
		{(*tracepb.ResourceSpans)(nil), map[protoreflect.Name]protowire.Number{"resource": ResourceSpansResource, "scope_spans": ResourceSpansScopes}},
		{(*resourcepb.Resource)(nil), map[protoreflect.Name]protowire.Number{"attributes": ResourceAttributes}},
		{(*tracepb.ScopeSpans)(nil), map[protoreflect.Name]protowire.Number{"scope": ScopeSpansScope, "spans": ScopeSpansSpans}},
		{(*commonpb.InstrumentationScope)(nil), map[protoreflect.Name]protowire.Number{"name": ScopeName}},
		{(*tracepb.Span)(nil), map[protoreflect.Name]protowire.Number{
			"trace_id": SpanTraceID, "span_id": SpanSpanID, "trace_state": SpanTraceState, "parent_span_id": SpanParentID,
			"name": SpanName, "kind": SpanKind, "start_time_unix_nano": SpanStart, "end_time_unix_nano": SpanEnd,
			"attributes": SpanAttributes, "dropped_attributes_count": SpanDroppedAttributes,
			"events": SpanEvents, "dropped_events_count": SpanDroppedEvents,
			"links": SpanLinks, "dropped_links_count": SpanDroppedLinks, "status": SpanStatus, "flags": SpanFlags,
		}},
		{(*tracepb.Span_Event)(nil), map[protoreflect.Name]protowire.Number{
			"time_unix_nano": EventTime, "name": EventName, "attributes": EventAttributes, "dropped_attributes_count": EventDroppedAttributes,
		}},
		{(*tracepb.Span_Link)(nil), map[protoreflect.Name]protowire.Number{
			"trace_id": LinkTraceID, "span_id": LinkSpanID, "trace_state": LinkTraceState,
			"attributes": LinkAttributes, "dropped_attributes_count": LinkDroppedAttributes, "flags": LinkFlags,
		}},
		{(*tracepb.Status)(nil), map[protoreflect.Name]protowire.Number{"message": StatusMessage, "code": StatusCode}},
		{(*commonpb.KeyValue)(nil), map[protoreflect.Name]protowire.Number{"key": KeyValueKey, "value": KeyValueValue}},
		{(*commonpb.AnyValue)(nil), map[protoreflect.Name]protowire.Number{
			"string_value": AnyString, "bool_value": AnyBool, "int_value": AnyInt, "double_value": AnyDouble,
			"array_value": AnyArray, "kvlist_value": AnyMap, "bytes_value": AnyBytes,
		}},
		{(*commonpb.ArrayValue)(nil), map[protoreflect.Name]protowire.Number{"values": ArrayValues}},
		{(*commonpb.KeyValueList)(nil), map[protoreflect.Name]protowire.Number{"values": ArrayValues}},
	} {
		md := message.of.ProtoReflect().Descriptor()
		for name, number := range message.numbers {
			if fd := md.Fields().ByName(name); fd == nil || fd.Number() != number {
				t.Errorf("%s of %s is not %d: %v", name, md.Name(), number, fd)
			}
		}
	}
	if FlagHasIsRemote != tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK || FlagIsRemote != tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK {
		t.Error("the flags are not OTLP's")
	}
}
