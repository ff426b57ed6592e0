package journal

import (
	"fmt"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestAppendSpans: encoded spans read the same as messages, however many records they
// take.
func TestAppendSpans(t *testing.T) {
	text := func(key, value string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
	}
	resource := &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("host.name", "h"), text(sourceKeys[0], "pod")}}
	for name, n := range map[string]int{"one": 1, "one record": 10, "many records": 1001} {
		t.Run(name, func(t *testing.T) {
			all := &tracepb.ScopeSpans{Scope: &commonpb.InstrumentationScope{Name: "kata-agent"}}
			for i := range n {
				all.Spans = append(all.Spans, &tracepb.Span{TraceId: make([]byte, 16), SpanId: fmt.Appendf(nil, "%08d", i), Name: "span"})
			}
			encoded, err := proto.Marshal(&tracepb.ScopeSpans{Spans: all.Spans})
			if err != nil {
				t.Fatal(err)
			}
			j, err := Open(t.TempDir(), Options{SegmentBytes: 8 << 10})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			if err := j.AppendSpans(resource, "kata-agent", encoded, n); err != nil {
				t.Fatal(err)
			}
			records, got := 0, &tracepb.ScopeSpans{Scope: all.Scope}
			if _, err := Scan(j.Dir(), func(r Record) error {
				records++
				td, err := r.Traces()
				for _, rs := range td.GetResourceSpans() {
					if r.Source != sourceOf(resource) || r.Spans != len(rs.ScopeSpans[0].Spans) || !proto.Equal(rs.Resource, resource) || !proto.Equal(rs.ScopeSpans[0].Scope, all.Scope) {
						t.Errorf("record %d: %+v of %v, %v", records, r, rs.Resource, rs.ScopeSpans[0].Scope)
					}
					got.Spans = append(got.Spans, rs.ScopeSpans[0].Spans...)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, all) || (records > 1) != (n > 10) {
				t.Errorf("%d spans in %d records, want %d", len(got.Spans), records, n)
			}
		})
	}
}

// TestAppendWhatIsNone: a span that is too large, a resource that is not UTF-8,
// malformed spans.
func TestAppendWhatIsNone(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{SegmentBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	large, err := proto.Marshal(&tracepb.ScopeSpans{Spans: []*tracepb.Span{{Name: string(make([]byte, 10<<10))}, {Name: "small"}}})
	if err != nil {
		t.Fatal(err)
	}
	odd := &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: "host\xff"}}}
	if err := j.AppendSpans(odd, "\xff", large, 2); err == nil {
		t.Error("a span that is too large is not")
	}
	if err := j.AppendSpans(odd, "", make([]byte, 20<<10), 10); err == nil {
		t.Error("zeros are spans")
	}
	drops, names := make(map[string]int), ""
	if _, err := Scan(dir, func(r Record) error {
		if r.Kind == KindDrops {
			d, err := r.Drops()
			for reason, n := range d {
				drops[reason] += n
			}
			return err
		}
		td, err := r.Traces()
		for _, rs := range td.GetResourceSpans() {
			names += rs.ScopeSpans[0].Spans[0].Name + " of " + rs.Resource.Attributes[0].Key
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if names != "small of host\uFFFD" || drops["too_large"] != 1 || drops["write_failed"] != 10 || len(drops) != 2 {
		t.Errorf("%q, dropped %v", names, drops)
	}
}
