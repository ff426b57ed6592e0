package agentwire

import (
	"bytes"
	"testing"
)

// What AppendOTLP writes of real spans is read and written again byte for byte.
func TestParseOTLP(t *testing.T) {
	for _, name := range []string{capture328, capture410, goldenBin, goldenJSON} {
		d := NewDecoder(Options{Keep: []string{"*"}, MaxValue: 1 << 20, MaxCost: 1 << 30})
		var s, got Span
		for i, p := range payloads(t, testdata(t, name+".frames")) {
			if err := d.Decode(p, &s); err != nil {
				t.Fatal(err)
			}
			want := s.AppendOTLP(nil)
			if err := ParseOTLP(want, &got); err != nil {
				t.Fatalf("%s, span %d: %v", name, i, err)
			}
			if got.TraceID != s.TraceID || got.SpanID != s.SpanID || got.ParentID != s.ParentID || got.Name != s.Name ||
				got.Start != s.Start || got.End != s.End || got.Kind != s.Kind || got.TraceFlags != s.TraceFlags || got.TraceState != s.TraceState {
				t.Fatalf("%s, span %d: got %+v, want %+v", name, i, got, s)
			}
			if again := got.AppendOTLP(nil); !bytes.Equal(again, want) {
				t.Fatalf("%s, span %d: written again it is another", name, i)
			}
			if err := ParseOTLP(want[:len(want)-1], &got); err == nil {
				t.Fatalf("%s, span %d: cut, it is whole", name, i)
			}
			if got.Name != "" || got.Size() != new(Span).Size() {
				t.Fatalf("%s, span %d: an error left %+v", name, i, got)
			}
		}
	}
}
