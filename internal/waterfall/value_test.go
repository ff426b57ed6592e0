package waterfall

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func text(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
}

func list(values ...*commonpb.AnyValue) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: values}}}
}

// TestValuesOfEveryKind are read, up to what is shown.
func TestValuesOfEveryKind(t *testing.T) {
	deep := text("x")
	for range maxValueDepth + 1 {
		deep = list(deep)
	}
	var many []*commonpb.AnyValue
	for range maxText {
		many = append(many, text("ab"))
	}
	for want, v := range map[string]*commonpb.AnyValue{
		"words":             text("words"),
		"true":              {Value: &commonpb.AnyValue_BoolValue{BoolValue: true}},
		"-7":                {Value: &commonpb.AnyValue_IntValue{IntValue: -7}},
		"0.5":               {Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 0.5}},
		"3 bytes":           {Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte{1, 2, 3}}},
		"[a, b]":            list(text("a"), text("b")),
		"{k: v, l: 1}":      {Value: &commonpb.AnyValue_KvlistValue{KvlistValue: &commonpb.KeyValueList{Values: []*commonpb.KeyValue{{Key: "k", Value: text("v")}, {Key: "l", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: 1}}}}}}},
		"[[[[[…]]]]]":       deep,
		"":                  {},
		"[ab, ab, ab, ab, ": list(many...),
	} {
		msg, err := proto.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got := valueText(msg, 0)
		if strings.HasSuffix(want, ", ") {
			if !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "…]") || len(got) > maxText+16 {
				t.Errorf("of a long list: %d bytes, %.20s", len(got), got)
			}
		} else if got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if string(textOf(msg)) != got {
			t.Errorf("textOf is %q, valueText %q", textOf(msg), got)
		}
	}
	// Unknown fields are skipped; malformed bytes end the reading.
	unknown := protowire.AppendTag(nil, 99, protowire.Fixed32Type)
	unknown = protowire.AppendFixed32(unknown, 1)
	unknown = protowire.AppendTag(unknown, 98, protowire.StartGroupType)
	unknown = protowire.AppendTag(unknown, 98, protowire.EndGroupType)
	msg, _ := proto.Marshal(text("x"))
	if got := valueText(append(unknown, msg...), 0); got != "x" {
		t.Errorf("behind unknown fields: %q", got)
	}
	for _, cut := range [][]byte{{0xff}, {8}, {9, 1}, {13, 1}, {10, 5, 1}} {
		if got := valueText(cut, 0); got != "" {
			t.Errorf("%x: %q", cut, got)
		}
	}
	if number(msg) != 0 {
		t.Error("a word is taken for a number")
	}
}

func TestFitTail(t *testing.T) {
	for _, tt := range []struct {
		text  string
		cells int
		want  string
	}{
		{"short", 10, "short"}, {"abcdef", 4, "…def"}, {"abcdef", 1, "…"}, {"abcdef", 0, ""},
		{"世界世界", 5, "…世界"}, {"世界世界", 4, "…界"}, {"世", 1, "…"},
	} {
		if got := fitTail(tt.text, tt.cells); got != tt.want || Width(got) > max(tt.cells, 0) {
			t.Errorf("%s in %d cells: %q, want %q", tt.text, tt.cells, got, tt.want)
		}
	}
}

func TestStoryName(t *testing.T) {
	for want, s := range map[string]Story{
		"ns/pod": {Pod: "pod", PodNamespace: "ns"}, "pod": {Pod: "pod"}, "": {},
		"box": {Containers: []Container{{ID: "1", Name: "box"}}},
	} {
		if got := s.Name(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, tt := range [][3]uint64{{0, 5, 5}, {5, 0, 5}, {5, 3, 3}, {3, 5, 3}} {
		if got := earliest(tt[0], tt[1]); got != tt[2] {
			t.Errorf("of %d and %d: %d", tt[0], tt[1], got)
		}
	}
}

// TestTroubleInWords: how a failed span is explained, with a code or without.
func TestTroubleInWords(t *testing.T) {
	const message = "first\nsecond"
	for want, tt := range map[string]struct {
		code, message string
		verbose       bool
	}{
		"failed":         {"", "", false},
		"NOT_FOUND":      {"NOT_FOUND", "", false},
		"why: here":      {"", "why: here", false},
		"CODE: why":      {"CODE", "why", false},
		"CODE of it":     {"CODE", "CODE of it", false},
		"first…":         {"", message, false},
		"first / second": {"", message, true},
	} {
		var out strings.Builder
		r := renderer{out: bufio.NewWriter(&out), opts: Options{Width: 80, Verbose: tt.verbose}}
		span := &Span{}
		span.text.code, span.text.message = tt.code, tt.message
		r.trouble(row{node: &Node{Span: span}})
		r.out.Flush()
		words := strings.Join(strings.Fields(strings.ReplaceAll(out.String(), "\n", " / ")), " ")
		if got := strings.TrimSuffix(strings.TrimPrefix(words, "✗ "), " /"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestJSONOfNothing is a document as well.
func TestJSONOfNothing(t *testing.T) {
	for _, spans := range [][]*tracepb.ResourceSpans{nil, {{}}} {
		var b strings.Builder
		var doc struct{ ResourceSpans []any }
		if err := WriteJSON(&b, spans); err != nil || json.Unmarshal([]byte(b.String()), &doc) != nil || !strings.HasSuffix(b.String(), "}\n") {
			t.Errorf("%v: %s", err, b.String())
		}
	}
}
