package waterfall

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// FuzzSpan reads spans as protobuf does, whatever the order of their fields.
func FuzzSpan(f *testing.F) {
	for _, s := range []*script{kataPod(), joined(), onDemand()} {
		for _, rs := range s.Spans {
			data, err := proto.Marshal(rs.ScopeSpans[0].Spans[0])
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		want, got := new(tracepb.Span), new(Span)
		var texts interner
		ok := got.read(data, ByShim, texts.intern)
		if proto.Unmarshal(data, want) != nil {
			return // texts that are not UTF-8, or what is not looked into
		}
		if !ok {
			t.Fatal("protobuf can read it")
		}
		key, valid := keyOf(want.TraceId, want.SpanId)
		if !valid {
			key = spanKey{}
		}
		start, end := times(want.StartTimeUnixNano, want.EndTimeUnixNano)
		if got.key != key || got.key != readKey(data) || got.start != start || got.end != end {
			t.Errorf("got %v from %d to %d, want %v from %d to %d", got.key, got.start, got.end, key, start, end)
		}
		if name := want.Name[:min(len(want.Name), maxField)]; got.Name != name {
			t.Errorf("name %q, want %q", got.Name, name)
		}
		if len(got.links) > min(len(want.Links), maxLinks) || got.Failed && want.Status.GetCode() == 0 {
			t.Errorf("%d links of %d, failed %v, status %v", len(got.links), len(want.Links), got.Failed, want.Status)
		}
	})
}

// TestValueText prints values as people read them, a bounded part of each.
func TestValueText(t *testing.T) {
	s := new(tracepb.Span)
	strange(s)
	s.Attributes = append(s.Attributes, attr("long", strings.Repeat("x", 1<<20)))
	want := map[string]string{
		"text": "<\"\u2028\\ü>", "": "",
		"nested": "{list: [true, false, 0, -1, 9223372036854775807, 0, 1.5e+300, +Inf, -Inf, NaN, 2 bytes, ], : }",
	}
	data, err := proto.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for key, value := range attributes(data, otlpwire.SpanAttributes) {
		n++
		text := valueText(value, 0)
		if w, ok := want[string(key)]; ok && text != w {
			t.Errorf("%s: %q, want %q", key, text, w)
		}
		if len(text) > 2*maxText {
			t.Errorf("%s: %d bytes", key, len(text))
		}
		if string(textOf(value)) != text && key[0] != 'l' {
			t.Errorf("%s: %q, without a copy %q", key, text, textOf(value))
		}
	}
	if n != len(s.Attributes) {
		t.Errorf("%d attributes, want %d", n, len(s.Attributes))
	}
}

// TestTimes: an impossible time is none.
func TestTimes(t *testing.T) {
	for _, tt := range []struct{ start, end, wantStart, wantEnd uint64 }{
		{0, 5, 0, 0}, {math.MaxUint64, 5, 0, 0}, {5, 4, 5, 5}, {5, math.MaxUint64, 5, 5}, {5, 6, 5, 6},
	} {
		if start, end := times(tt.start, tt.end); start != tt.wantStart || end != tt.wantEnd {
			t.Errorf("%d to %d is %d to %d", tt.start, tt.end, start, end)
		}
	}
}
