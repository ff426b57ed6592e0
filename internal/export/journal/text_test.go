package journal

import (
	"cmp"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestTextFromOutside: one byte that is not UTF-8, in the key or the value of a resource's
// attribute, loses no span and changes nothing else.
func TestTextFromOutside(t *testing.T) {
	resource := func(key, value string) *resourcepb.Resource {
		text := func(s string) *commonpb.AnyValue {
			return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
		}
		return &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: key, Value: text(value)}, {Key: "other", Value: text("Zürich")}}}
	}
	encoded, err := proto.Marshal(&tracepb.ScopeSpans{Spans: []*tracepb.Span{{Name: "span"}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ in, want *resourcepb.Resource }{
		"value": {resource("city", "Z\xfcrich"), resource("city", "Z\uFFFDrich")},
		"key":   {resource("Z\xfcrich", "x"), resource("Z\uFFFDrich", "x")},
		"none":  {resource("city", "Zürich"), resource("city", "Zürich")},
	} {
		t.Run(name, func(t *testing.T) {
			j, err := Open(t.TempDir(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			key, value := tt.in.Attributes[0].Key, tt.in.Attributes[0].Value.GetStringValue()
			if err := j.AppendSpans(tt.in, "scope", encoded, 1); err != nil {
				t.Fatal(err)
			}
			if kv := tt.in.Attributes[0]; kv.Key != key || kv.Value.GetStringValue() != value {
				t.Error("what the caller has was changed")
			}
			if _, err := Scan(j.Dir(), func(r Record) error {
				traces, err := r.Traces()
				if err == nil && (len(traces.ResourceSpans) != 1 || !proto.Equal(traces.ResourceSpans[0].Resource, tt.want) || traces.ResourceSpans[0].ScopeSpans[0].Spans[0].Name != "span") {
					t.Errorf("the journal has %v", traces)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestResources: a resource reads the same whether it has only texts or not.
func TestResources(t *testing.T) {
	text := &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: strings.Repeat("long ", 40)}}
	empty := &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{}}
	number := &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: 7}}
	for _, r := range []*resourcepb.Resource{
		nil, {},
		{Attributes: []*commonpb.KeyValue{{Key: "text", Value: text}, {Key: "", Value: empty}, {Key: "none"}}},
		{Attributes: []*commonpb.KeyValue{{Key: "text", Value: text}, {Key: "number", Value: number}}},
		{Attributes: []*commonpb.KeyValue{{Key: "text", Value: text}}, DroppedAttributesCount: 2},
		{EntityRefs: []*commonpb.EntityRef{{Type: "host", IdKeys: []string{"host.id"}}}},
	} {
		o, err := newOrigin(r, "")
		if err != nil {
			t.Fatal(err)
		}
		var got resourcepb.Resource
		if err := proto.Unmarshal(o.resource, &got); err != nil || !proto.Equal(&got, cmp.Or(r, new(resourcepb.Resource))) {
			t.Errorf("%v became %v, %v", r, &got, err)
		}
	}
}
