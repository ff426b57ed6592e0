package otlpshape

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestShapes: the shapes are those of the messages' descriptors.
func TestShapes(t *testing.T) {
	compared := make(map[*Shape]bool)
	compare(t, &ResourceSpans, new(tracepb.ResourceSpans).ProtoReflect().Descriptor(), compared)
	if len(compared) != 13 {
		t.Errorf("%d shapes instead of 13", len(compared))
	}
}

func compare(t *testing.T, s *Shape, md protoreflect.MessageDescriptor, compared map[*Shape]bool) {
	if compared[s] {
		return
	}
	compared[s] = true
	known := make(map[int]bool)
	all := md.Fields()
	for i := range all.Len() {
		fd := all.Get(i)
		known[int(fd.Number())] = true
		var got, want field
		if int(fd.Number()) < len(s.fields) {
			got = s.fields[fd.Number()]
		}
		switch {
		case fd.Message() != nil && got.of == nil:
			t.Errorf("%s is a message", fd.FullName())
			continue
		case fd.Message() != nil:
			want.of = got.of
			compare(t, got.of, fd.Message(), compared)
		case fd.Kind() == protoreflect.StringKind:
			want.text = true
		case fd.Kind() == protoreflect.BytesKind && strings.HasSuffix(string(fd.Name()), "trace_id"):
			want.id = 16
		case fd.Kind() == protoreflect.BytesKind && strings.HasSuffix(string(fd.Name()), "span_id"):
			want.id = 8
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, not %+v", fd.FullName(), got, want)
		}
	}
	for number, f := range s.fields {
		if !known[number] && f != (field{}) {
			t.Errorf("%s has no field %d", md.FullName(), number)
		}
	}
}

// TestCheck: what is checked without decoding is what decoding says.
func TestCheck(t *testing.T) {
	nested := &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "x"}}
	for range maxDepth {
		nested = &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{nested}}}}
	}
	span := func(change func(*tracepb.Span)) []byte {
		s := &tracepb.Span{
			TraceId: bytes.Repeat([]byte{1}, 16), SpanId: bytes.Repeat([]byte{2}, 8), Name: "name",
			Attributes: []*commonpb.KeyValue{{Key: "key", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "value"}}}},
			Links:      []*tracepb.Span_Link{{TraceId: bytes.Repeat([]byte{3}, 16), SpanId: bytes.Repeat([]byte{4}, 8)}},
		}
		change(s)
		b, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := span(func(*tracepb.Span) {})
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"good":             {good, nil},
		"a text":           {bytes.Replace(good, []byte("value"), []byte("val\xff\xff"), 1), ErrNotText},
		"an id":            {span(func(s *tracepb.Span) { s.Links[0].SpanId = []byte{1} }), ErrIDLength},
		"no id":            {span(func(s *tracepb.Span) { s.Links[0].SpanId = nil }), nil},
		"nested":           {span(func(s *tracepb.Span) { s.Attributes[0].Value = nested }), ErrDepth},
		"a group":          {append(bytes.Clone(good), 0x7b, 0x7c), ErrGroup},
		"an unknown field": {append(bytes.Clone(good), 0xfa, 1, 1, 0xff), nil},
	} {
		var messages int
		if err := Span.check(c.b, 0, &messages); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		} else if err == nil && messages != 4 {
			t.Errorf("%s: %d messages", name, messages)
		}
	}
	var messages int
	if Span.check(good[:len(good)-1], 0, &messages) == nil {
		t.Error("a span that is cut off")
	}
}

// FuzzCheck: what passes can be decoded.
func FuzzCheck(f *testing.F) {
	b, err := proto.Marshal(&tracepb.ResourceSpans{
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: "name", Status: &tracepb.Status{Message: "message"}}}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var messages int
		if ResourceSpans.check(b, 0, &messages) != nil {
			return
		}
		if err := proto.Unmarshal(b, new(tracepb.ResourceSpans)); err != nil {
			t.Errorf("%v", err)
		}
	})
}
