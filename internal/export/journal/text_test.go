package journal

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestTextFromOutside: one byte that is not UTF-8, in any text, loses no span and
// changes nothing else.
func TestTextFromOutside(t *testing.T) {
	const latin = "Z\xfcrich"
	value := func(s string) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
	}
	attr := func(k string, v *commonpb.AnyValue) []*commonpb.KeyValue {
		return []*commonpb.KeyValue{{Key: k, Value: v}}
	}
	span := func(change func(*tracepb.Span)) *tracepb.ResourceSpans {
		s := &tracepb.Span{Name: "span", TraceId: []byte(strings.Repeat("\xff", 16)), SpanId: []byte(strings.Repeat("\xff", 8))}
		change(s)
		return &tracepb.ResourceSpans{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{s}}}}
	}
	for name, rs := range map[string]*tracepb.ResourceSpans{
		"resource":     {Resource: &resourcepb.Resource{Attributes: attr("city", value(latin))}, ScopeSpans: span(func(*tracepb.Span) {}).ScopeSpans},
		"resource key": {Resource: &resourcepb.Resource{Attributes: attr(latin, value("x"))}, ScopeSpans: span(func(*tracepb.Span) {}).ScopeSpans},
		"entity":       {Resource: &resourcepb.Resource{EntityRefs: []*commonpb.EntityRef{{IdKeys: []string{"x", latin}}}}, ScopeSpans: span(func(*tracepb.Span) {}).ScopeSpans},
		"name":         span(func(s *tracepb.Span) { s.Name = latin }),
		"trace state":  span(func(s *tracepb.Span) { s.TraceState = latin }),
		"attribute":    span(func(s *tracepb.Span) { s.Attributes = attr("x", value(latin)) }),
		"status message": span(func(s *tracepb.Span) {
			s.Status = &tracepb.Status{Message: latin, Code: tracepb.Status_STATUS_CODE_ERROR}
		}),
		"event": span(func(s *tracepb.Span) {
			s.Events = []*tracepb.Span_Event{{Name: "e", Attributes: attr("x", value(latin))}}
		}),
		"link": span(func(s *tracepb.Span) { s.Links = []*tracepb.Span_Link{{TraceState: latin}} }),
		"list": span(func(s *tracepb.Span) {
			s.Attributes = attr("x", &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{value("ok"), value(latin)}}}})
		}),
		"list of pairs": span(func(s *tracepb.Span) {
			s.Attributes = attr("x", &commonpb.AnyValue{Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: attr(latin, value(latin))}}})
		}),
	} {
		t.Run(name, func(t *testing.T) {
			j, err := Open(t.TempDir(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			before := proto.Clone(rs).(*tracepb.ResourceSpans)
			other := span(func(s *tracepb.Span) { s.Name = "another's" })
			if err := j.UploadTraces(t.Context(), []*tracepb.ResourceSpans{rs, other}); err != nil {
				t.Fatal(err)
			}
			if !equalText(rs, before) {
				t.Error("what the caller has was changed")
			}
			var got []*tracepb.ResourceSpans
			if _, err := Scan(j.Dir(), func(r Record) error {
				traces, err := r.Traces()
				got = append(got, traces.GetResourceSpans()...)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if len(got) != 2 || !proto.Equal(got[1], other) {
				t.Fatalf("%d resources, want 2: %v", len(got), got)
			}
			text := got[0].String()
			if !utf8.ValidString(text) || !strings.Contains(text, "Z\uFFFDrich") {
				t.Errorf("%s", text)
			}
		})
	}
	valid := &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{span(func(s *tracepb.Span) { s.Name = "Zürich" })}}
	if got, changed := validText(valid); changed || !proto.Equal(got, valid) {
		t.Errorf("what is valid was changed to %v", got)
	}
}

// equalText compares messages whose texts need not be valid.
func equalText(a, b *tracepb.ResourceSpans) bool {
	plain := func(m *tracepb.ResourceSpans) any {
		out := []any{}
		for _, kv := range m.GetResource().GetAttributes() {
			out = append(out, kv.Key, kv.Value.GetStringValue())
		}
		for _, s := range m.ScopeSpans[0].Spans {
			out = append(out, s.Name, s.TraceState, s.GetStatus().GetMessage())
			for _, kv := range s.Attributes {
				out = append(out, kv.Key, kv.Value.GetStringValue())
			}
		}
		return out
	}
	return reflect.DeepEqual(plain(a), plain(b))
}
