package view

import (
	"bytes"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
)

// TestSpansLimit: no more than the limit is read, and the rest is counted.
func TestSpansLimit(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	trace := bytes.Repeat([]byte{1}, 16)
	root := &tracepb.Span{TraceId: trace, SpanId: trace[:8], Name: "sandbox start", StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + 2e8}
	call := &tracepb.Span{TraceId: trace, SpanId: bytes.Repeat([]byte{2}, 8), ParentSpanId: root.SpanId, Name: "Create", StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + 1e8}
	if err := journaltest.Append(j, []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key: "shimtrace.sandbox.id", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "a"}},
		}}},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "github.com/shimtrace/shimtrace/shim"}, Spans: []*tracepb.Span{root, call}}},
	}}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	r := &Reader{Dir: dir}
	stories, err := r.stories()
	if err != nil || len(stories) != 1 {
		t.Fatal(stories, err)
	}
	for limit, wantMore := range map[int]int{1: 1, 2: 0, 9: 0} {
		tree, err := r.tree(stories[0], waterfall.Limits{Spans: limit}, false)
		if err != nil {
			t.Fatal(err)
		}
		if tree.Spans != min(limit, 2) || tree.Omitted != wantMore {
			t.Errorf("limit %d: %d spans and %d more", limit, tree.Spans, tree.Omitted)
		}
	}
}

// TestTrees: trees are built for as many stories at a time as there is memory for, and
// each is whole.
func TestTrees(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const pods = 7
	for n := range uint64(pods) {
		if err := journaltest.Append(j, storytest.Another(storytest.Captured(storytest.Pods[0]), n).ResourceSpans); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	r := &Reader{Dir: dir}
	stories, err := r.stories()
	if err != nil || len(stories) != pods {
		t.Fatalf("%d stories, %v", len(stories), err)
	}
	for _, memory := range []int{600 << 10, 1 << 20, maxTree} { // of two, three and all of them
		got := 0
		err := r.trees(stories, memory, func(s *waterfall.Story, tree *waterfall.Tree) {
			if got++; tree.Spans != s.Spans || s != stories[got-1] {
				t.Errorf("%d bytes: %d spans of %d", memory, tree.Spans, s.Spans)
			}
		})
		if err != nil || got != pods {
			t.Errorf("%d bytes: %d trees, %v", memory, got, err)
		}
	}
}
