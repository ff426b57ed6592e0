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
			dirs := [2]string{t.TempDir(), t.TempDir()}
			for i, dir := range dirs {
				j, err := Open(dir, Options{SegmentBytes: 8 << 10})
				if err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					err = j.AppendSpans(resource, "kata-agent", encoded, n)
				} else {
					err = j.UploadTraces(t.Context(), []*tracepb.ResourceSpans{{Resource: resource, ScopeSpans: []*tracepb.ScopeSpans{all}}})
				}
				if err != nil {
					t.Fatal(err)
				}
				j.Close()
			}
			var got [2][]Record
			var spans [2][]*tracepb.ResourceSpans
			for i, dir := range dirs {
				if _, err := Scan(dir, func(r Record) error {
					td, err := r.Traces()
					spans[i] = append(spans[i], td.GetResourceSpans()...)
					r.Payload = nil
					got[i] = append(got[i], r)
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			if len(got[0]) != len(got[1]) {
				t.Fatalf("%d records, of messages %d", len(got[0]), len(got[1]))
			}
			for i := range got[0] {
				if got[0][i].Source != got[1][i].Source || got[0][i].Spans != got[1][i].Spans || !proto.Equal(spans[0][i], spans[1][i]) {
					t.Errorf("record %d: %+v, of messages %+v", i, got[0][i], got[1][i])
				}
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
