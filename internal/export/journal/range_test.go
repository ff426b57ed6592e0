package journal

import (
	"os"
	"slices"
	"testing"

	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// TestReadRange reads the middle of a segment again, and nothing of a removed one.
func TestReadRange(t *testing.T) {
	j, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	names := []string{"a", "b", "c", "d"}
	for _, n := range names {
		rs := []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: n}}}}}}
		if err := journaltest.Append(j, rs); err != nil {
			t.Fatal(err)
		}
	}
	var all []Record
	if _, err := Scan(j.Dir(), func(r Record) error { all = append(all, r); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range all[1:] {
		if all[i].End() != all[i+1].Offset {
			t.Errorf("record %d ends at %d, the next begins at %d", i, all[i].End(), all[i+1].Offset)
		}
	}
	read := func(r Range) (got []string, there bool) {
		there, err := ReadRange(j.Dir(), r, func(r Record) {
			data, err := r.Traces()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, data.ResourceSpans[0].ScopeSpans[0].Spans[0].Name)
		})
		if err != nil {
			t.Fatal(err)
		}
		return got, there
	}
	middle := Range{Position: Position{all[1].Segment, all[1].Offset}, End: all[2].End(), Spans: 2}
	if got, there := read(middle); !slices.Equal(got, names[1:3]) || !there {
		t.Errorf("read %v, %v", got, there)
	}
	c := Cursor{Aside: []Range{middle, {Position: Position{Segment: 1}, Spans: 5}}}
	if err := WriteCursor(j.Dir(), "", c); err != nil {
		t.Fatal(err)
	}
	if kept, err := ReadCursor(j.Dir(), ""); err != nil || !slices.Equal(kept.Aside, c.Aside) || kept.aside(middle.Segment) != 2 {
		t.Errorf("kept %+v, %v", kept, err)
	}
	if err := os.Remove(segmentPath(j.Dir(), middle.Segment)); err != nil {
		t.Fatal(err)
	}
	if got, there := read(middle); len(got) > 0 || there || Has(j.Dir(), middle.Segment) {
		t.Errorf("of a segment that is gone: %v, %v", got, there)
	}
}
