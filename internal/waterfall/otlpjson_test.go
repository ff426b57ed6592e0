package waterfall

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// reference returns protobuf's JSON of a message, changed to OTLP's.
func reference(t *testing.T, rs *tracepb.ResourceSpans) any {
	t.Helper()
	text, err := protojson.MarshalOptions{UseEnumNumbers: true}.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	hexIDs(doc)
	return doc
}

func hexIDs(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			hexIDs(e)
		}
	case map[string]any:
		for _, key := range []string{"traceId", "spanId", "parentSpanId"} {
			if text, ok := v[key].(string); ok {
				id, _ := base64.StdEncoding.DecodeString(text)
				v[key] = hex.EncodeToString(id)
			}
		}
		for _, e := range v {
			hexIDs(e)
		}
	}
}

// TestWriteJSON compares the document with the specification's form: ids in hex,
// enumerations as numbers, 64-bit integers as strings, and bytes in base64 even if an
// attribute is named like an id.
func TestWriteJSON(t *testing.T) {
	s := &script{}
	s.Span(resourceOf("containerd-shim-runc-v2"), "s", "b", "a", "b", 0, 1, linked("t", "x"), wrong("NOT_FOUND", "no"),
		with(&commonpb.KeyValue{Key: "traceId", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte{255}}}}))
	s.Spans[0].ScopeSpans[0].Spans[0].Kind = tracepb.Span_SPAN_KIND_SERVER
	s.Span(resourceOf("containerd-shim-runc-v2"), "s", "a", "", "a", 0, 1)
	var out bytes.Buffer
	if err := WriteJSON(&out, s.Spans); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(out.Bytes()) {
		t.Fatalf("no JSON: %s", out.Bytes())
	}
	golden(t, "spans.json", out.Bytes())
}

// strange returns a span with all kinds of values.
func strange(s *tracepb.Span) {
	value := func(v any) *commonpb.AnyValue {
		switch v := v.(type) {
		case bool:
			return &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: v}}
		case int:
			return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: int64(v)}}
		case float64:
			return &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: v}}
		case []byte:
			return &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: v}}
		}
		return nil
	}
	list := &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{}}}
	for _, v := range []any{true, false, 0, -1, math.MaxInt64, 0.0, 1.5e300, math.Inf(1), math.Inf(-1), math.NaN(), []byte{0, 255}} {
		list.GetArrayValue().Values = append(list.GetArrayValue().Values, value(v))
	}
	list.GetArrayValue().Values = append(list.GetArrayValue().Values, &commonpb.AnyValue{})
	nested := &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: []*commonpb.KeyValue{{Key: "list", Value: list}, {}}}}}
	s.Attributes = append(s.Attributes, attr("text", "<\"\u2028\\ü>"), attr("", ""), &commonpb.KeyValue{Key: "nested", Value: nested})
	s.Events = append(s.Events, &tracepb.Span_Event{Name: "e", TimeUnixNano: math.MaxUint64, Attributes: s.Attributes, DroppedAttributesCount: math.MaxUint32})
	s.Links = append(s.Links, &tracepb.Span_Link{TraceId: traceBytes("l"), SpanId: spanBytes("l"), TraceState: "a=b", Flags: 1 << 31})
	s.TraceState, s.Flags, s.DroppedLinksCount, s.Kind = "x=y", math.MaxUint32, 7, tracepb.Span_SPAN_KIND_CLIENT
	s.Status = &tracepb.Status{}
}

// TestJSONIsProtobufs: writing field by field equals protobuf's JSON.
func TestJSONIsProtobufs(t *testing.T) {
	s := kataPod()
	s.Span(resourceOf("x"), "s", "strange", "root", "strange", 0, ms, strange)
	s.Spans = append(s.Spans, nil, &tracepb.ResourceSpans{SchemaUrl: "u", ScopeSpans: []*tracepb.ScopeSpans{{SchemaUrl: "v"}}})
	for _, rs := range s.Spans {
		var out bytes.Buffer
		if err := WriteJSON(&out, []*tracepb.ResourceSpans{rs}); err != nil {
			t.Fatal(err)
		}
		var got struct{ ResourceSpans []any }
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
		if want := reference(t, rs); !reflect.DeepEqual(got.ResourceSpans[0], want) {
			t.Errorf("got  %v\nwant %v", got.ResourceSpans[0], want)
		}
	}
}

// TestJSONOfStory: a story's spans, and only these, are in its document, with their
// resources and scopes.
func TestJSONOfStory(t *testing.T) {
	s := joined()
	other := &script{}
	other.Span(sandbox("other"), "run", "in the same trace", "x", "other", 0, ms)
	data := message(append(other.Spans, s.Spans...))
	x := indexOf(append(other.Spans, s.Spans...))
	for _, story := range x.Stories() {
		var out bytes.Buffer
		j := NewJSONWriter(&out)
		if err := j.Add(story, data); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(out.String(), `"spanId"`) - strings.Count(out.String(), `"links"`); got != story.Spans {
			t.Errorf("%s: %d spans, want %d: %s", story.Sandbox, got, story.Spans, out.String())
		}
		if !json.Valid(out.Bytes()) || strings.Contains(out.String(), `"other"`) != (story.Sandbox == "other") {
			t.Errorf("%s: %s", story.Sandbox, out.String())
		}
	}
	var none bytes.Buffer
	if err := NewJSONWriter(&none).Close(); err != nil || none.String() != "{\"resourceSpans\":[]}\n" {
		t.Errorf("without spans: %q, %v", none.String(), err)
	}
}
