package agent

import (
	"bytes"
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Real spans survive Append and Parse byte for byte.
func TestParse(t *testing.T) {
	for _, name := range []string{capture328, capture410, goldenBin, goldenJSON} {
		d := NewDecoder(Options{Options: span.Options{Keep: []string{"*"}, MaxValue: 1 << 20, MaxCost: 1 << 30}})
		var s span.Span
		for i, p := range payloads(t, testdata(t, name+".frames")) {
			if err := d.Decode(p, &s); err != nil {
				t.Fatal(err)
			}
			want := s.Append(nil)
			if len(want) > span.MaxSize {
				continue
			}
			got, err := span.Parse(want)
			if err != nil {
				t.Fatalf("%s, span %d: %v", name, i, err)
			}
			if got.TraceID != s.TraceID || got.SpanID != s.SpanID || got.ParentID != s.ParentID || got.Name != s.Name ||
				got.Start != s.Start || got.End != s.End || got.Kind != s.Kind || got.TraceFlags != s.TraceFlags || got.TraceState != s.TraceState {
				t.Fatalf("%s, span %d: got %+v, want %+v", name, i, got, s)
			}
			if again := got.Append(nil); !bytes.Equal(again, want) {
				t.Fatalf("%s, span %d: written again it is another", name, i)
			}
			if _, err := span.Parse(want[:len(want)-1]); err == nil && s.ContainerID+s.Method == "" {
				t.Fatalf("%s, span %d: cut, it is whole", name, i)
			}
		}
	}
}
