package journal

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// postedBy returns a message of n spans with names of the given length, in two scopes.
func postedBy(t testing.TB, service string, n, length int) Posted {
	t.Helper()
	rs := &tracepb.ResourceSpans{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key: "service.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: service}},
		}}},
		SchemaUrl:  "schema",
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "a"}}, {Scope: &commonpb.InstrumentationScope{Name: "b"}}},
	}
	for i := range n {
		ss := rs.ScopeSpans[i%2]
		ss.Spans = append(ss.Spans, &tracepb.Span{
			TraceId: bytes.Repeat([]byte{1}, 16), SpanId: fmt.Appendf(nil, "%08d", i), Name: strings.Repeat("n", length),
		})
	}
	data, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{rs}})
	if err != nil {
		t.Fatal(err)
	}
	return Posted{data, n}
}

// readPosted returns the service, the scope and the id of each posted span.
func readPosted(t testing.TB, dir string) (spans []string) {
	t.Helper()
	if _, err := Scan(dir, func(r Record) error {
		if r.Kind != KindPosted {
			return nil
		}
		td, err := r.Traces()
		if err != nil {
			return err
		}
		if n := CountSpans(td); n != r.Spans {
			t.Errorf("a record says %d spans and has %d", r.Spans, n)
		}
		for _, rs := range td.ResourceSpans {
			if rs.SchemaUrl != "schema" {
				t.Error("the schema is lost")
			}
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					spans = append(spans, rs.Resource.Attributes[0].Value.GetStringValue()+" "+ss.Scope.Name+" "+string(s.SpanId))
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return spans
}

// TestPosted: posts of one share are as few records as possible, a large post is
// divided, and every span keeps its resource and scope.
func TestPosted(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{SegmentBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	all := []Posted{postedBy(t, "small", 1, 9), postedBy(t, "large", 100, 1000), postedBy(t, "more", 3, 9), postedBy(t, "last", 3, 9)}
	if done, err := j.AppendPosted(PostedSource("x"), all); done != len(all) || err != nil {
		t.Fatal(done, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	records := 0
	if _, err := Scan(dir, func(Record) error { records++; return nil }); err != nil || records > 11 {
		t.Errorf("%d records, %v", records, err)
	}
	var want []string
	for _, p := range all {
		td := new(tracepb.TracesData)
		if err := proto.Unmarshal(p.Data, td); err != nil {
			t.Fatal(err)
		}
		rs := td.ResourceSpans[0]
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				want = append(want, rs.Resource.Attributes[0].Value.GetStringValue()+" "+ss.Scope.Name+" "+string(s.SpanId))
			}
		}
	}
	if got := readPosted(t, dir); !slices.Equal(got, want) {
		t.Errorf("%d spans instead of %d:\n%q", len(got), len(want), got)
	}
}

// TestPostedTooLarge: only the span that no record can hold is lost, and counted.
func TestPostedTooLarge(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{SegmentBytes: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if done, err := j.AppendPosted(0, []Posted{postedBy(t, "fits", 2, 1), postedBy(t, "not", 1, 9000), postedBy(t, "fits", 1, 1)}); done != 3 || err != nil {
		t.Fatal(done, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readPosted(t, dir); len(got) != 3 {
		t.Errorf("%q", got)
	}
	if lost := dropsIn(t, dir); lost["otlp: "+losses.TooLarge.String()] != 1 || len(lost) != 1 {
		t.Errorf("lost: %v", lost)
	}
}

func dropsIn(t testing.TB, dir string) map[string]int {
	t.Helper()
	all := make(map[string]int)
	if _, err := Scan(dir, func(r Record) error {
		if r.Kind.Traces() {
			return nil
		}
		m, err := r.Drops()
		for reason, n := range m {
			all[reason] += n
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestAFloodOfPostsCostsItself: whatever programs post, under however many names, a
// sandbox within its share keeps its spans.
func TestAFloodOfPostsCostsItself(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{MaxBytes: 256 << 10, SegmentBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	const sandboxes = 20
	for i := range sandboxes {
		uploadOf(t, j, fmt.Sprint("box", i), "quiet")
	}
	shares := make(map[Source]bool)
	for i := range 200 {
		service := fmt.Sprint("program", i)
		shares[PostedSource(service)] = true
		if _, err := j.AppendPosted(PostedSource(service), []Posted{postedBy(t, service, 30, 200)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(shares) > postedShares {
		t.Errorf("%d shares", len(shares))
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if size := journalBytes(t, dir); size > 256<<10 {
		t.Errorf("the journal has %d bytes", size)
	}
	kept := 0
	if _, err := Scan(dir, func(r Record) error {
		if r.Kind == KindTraces {
			kept += r.Spans
		}
		return nil
	}); err != nil || kept != sandboxes {
		t.Errorf("%d of %d spans of sandboxes are left: %v; lost %v", kept, sandboxes, err, dropsIn(t, dir))
	}
}

// FuzzCut: however a message is cut, every span is there once, with its resource and
// scope.
func FuzzCut(f *testing.F) {
	f.Add(postedBy(f, "s", 9, 20).Data, uint16(100))
	f.Add([]byte{10, 2, 18, 0, 10, 0, 8, 1}, uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		td := new(tracepb.TracesData)
		if proto.Unmarshal(b, td) != nil {
			return
		}
		want, parts := spansOf(td), cut(b, int(size), tracesPath)
		var got []string
		for _, part := range parts {
			td := new(tracepb.TracesData)
			if err := proto.Unmarshal(part, td); err != nil {
				t.Fatal(err)
			}
			some := spansOf(td)
			if n := countElements(part, tracesPath); n != len(some) {
				t.Fatalf("%d spans counted of %d", n, len(some))
			}
			if len(part) > int(size) && len(some) > 1 {
				t.Fatalf("%d spans in a part of %d bytes", len(some), len(part))
			}
			got = append(got, some...)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Fatalf("%q, not %q", got, want)
		}
	})
}

// spansOf returns the spans with their resources and scopes, in some fixed order.
func spansOf(td *tracepb.TracesData) (all []string) {
	text := func(m proto.Message) string {
		b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		return string(b)
	}
	for _, rs := range td.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				all = append(all, text(rs.Resource)+"|"+text(ss.Scope)+"|"+text(s))
			}
		}
	}
	slices.Sort(all)
	return all
}
