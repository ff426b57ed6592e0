package journal

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/names"
)

// appendFor appends a span of a sandbox with a name of that length.
func appendFor(t *testing.T, j *Journal, sandbox string, length int) {
	t.Helper()
	rs := &tracepb.ResourceSpans{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
			Key: names.Sandbox, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: sandbox}},
		}}},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: fmt.Sprintf("%0*d", length, 0)}}}},
	}
	if err := journaltest.Append(j, []*tracepb.ResourceSpans{rs}); err != nil {
		t.Fatal(err)
	}
}

// remains counts the spans of a sandbox, and its marks.
func remains(t *testing.T, j *Journal, sandbox string) (spans, marks int) {
	t.Helper()
	numbers, err := listSegments(j.Dir())
	for _, n := range numbers {
		var st Stats
		err = errors.Join(err, scanSegment(j.Dir(), n, &st, func(r Record) error {
			switch {
			case r.Source != SourceOf(sandbox):
			case r.Kind == KindWorth:
				marks++
			default:
				spans += r.Spans
			}
			return nil
		}))
	}
	if err != nil {
		t.Fatal(err)
	}
	return spans, marks
}

// TestWorth: the spans of a sandbox that is worth more outlast any number of others, by
// its mark; they are no more than a part of the journal.
func TestWorth(t *testing.T) {
	o := Options{SegmentBytes: 4 << 10, MaxBytes: 64 << 10}
	j, err := Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, sandbox := range []string{"slow", "quick", "quick", "quick", "greedy"} { // quick has as many as each of the others below
		appendFor(t, j, sandbox, 500)
	}
	for range 60 { // 30 kB, more than an eighth of the journal
		appendFor(t, j, "greedy", 500)
	}
	for _, sandbox := range []string{"slow", "greedy"} {
		if err := j.Worth(sandbox); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2000 { // the journal's size many times over
		appendFor(t, j, fmt.Sprint("other ", i/3), 500)
	}
	if spans, marks := remains(t, j, "slow"); spans != 1 || marks != 1 {
		t.Errorf("of the slow one %d spans and %d marks are left", spans, marks)
	}
	if spans, _ := remains(t, j, "quick"); spans > 0 {
		t.Errorf("of the quick one %d spans are left", spans)
	}
	if spans, _ := remains(t, j, "greedy"); int64(spans*500) > o.MaxBytes/floodPart {
		t.Errorf("of the greedy one %d spans are left", spans)
	}
	if err := j.Worth("nobody"); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		appendFor(t, j, fmt.Sprint("more ", i/3), 500)
	}
	if _, marks := remains(t, j, "nobody"); marks > 0 {
		t.Error("a mark without spans stays")
	}
	var st Stats
	if st, err = Scan(j.Dir(), func(Record) error { return nil }); err != nil || st.Bytes > o.MaxBytes {
		t.Errorf("%d bytes, %v", st.Bytes, err)
	}
	// They don't age, as others do.
	s := shares{now: time.Now(), aged: true, bytes: usage{1: 10, 2: 10}, worth: map[Source]bool{1: true}, level: 100, high: 100}
	old := Record{Time: time.Now().Add(-2 * shareTime)}
	for source, want := range map[Source]bool{1: true, 2: false} {
		if old.Source = source; s.keeps(old) != want {
			t.Errorf("source %d is kept: %v", source, !want)
		}
	}
}

// TestWorthShipped: what a slow sandbox has in the journal stays when it has been shipped,
// and is not shipped again. Nothing of it counts as lost.
func TestWorthShipped(t *testing.T) {
	o := Options{SegmentBytes: 4 << 10, MaxBytes: 64 << 10, Shipped: true}
	j, err := Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	appendFor(t, j, "slow", 500)
	appendFor(t, j, "quick", 500)
	for range 60 { // more than an eighth of the journal
		appendFor(t, j, "greedy", 500)
	}
	for _, sandbox := range []string{"slow", "greedy"} {
		if err := j.Worth(sandbox); err != nil {
			t.Fatal(err)
		}
	}
	// A shipper, which is done with all at once.
	f := Follow(j.Dir(), Cursor{})
	defer f.Close()
	shipped := make(map[Source]int)
	ship := func() {
		for {
			r, err := f.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind.Traces() && !r.Kept {
				shipped[r.Source] += r.Spans
			}
		}
		if err := WriteCursor(j.Dir(), "", f.Cursor()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2000 { // the journal's size many times over
		appendFor(t, j, fmt.Sprint("other ", i/3), 500)
		ship()
	}
	if spans, marks := remains(t, j, "slow"); spans != 1 || marks != 1 {
		t.Errorf("of the slow one %d spans and %d marks are left", spans, marks)
	}
	if spans, _ := remains(t, j, "quick"); spans > 0 {
		t.Errorf("of the quick one %d spans are left", spans)
	}
	if spans, _ := remains(t, j, "greedy"); int64(spans*500) > o.MaxBytes/floodPart {
		t.Errorf("of the greedy one %d spans are left", spans)
	}
	for sandbox, want := range map[string]int{"slow": 1, "quick": 1, "greedy": 60} {
		if n := shipped[SourceOf(sandbox)]; n != want {
			t.Errorf("%d spans of the %s one were shipped, want %d", n, sandbox, want)
		}
	}
	st, err := Scan(j.Dir(), func(r Record) error {
		if r.Kind == KindDrops || r.Kind == KindCarried {
			t.Errorf("spans were lost: %s", r.Payload)
		}
		return nil
	})
	if err != nil || st.Bytes > o.MaxBytes {
		t.Errorf("%d bytes, %v", st.Bytes, err)
	}
}

// TestSpare: what has been shipped takes no room from what has not.
func TestSpare(t *testing.T) {
	for _, tt := range []struct{ rest, most int64 }{{400, 80}, {150, 30}, {20, 0}, {0, 0}} {
		s := shares{flood: 100, shipped: usage{1: 30, 2: 80, 3: 120}}
		s.spare(400, tt.rest)
		var most int64
		for _, bytes := range s.shipped {
			most = max(most, bytes)
		}
		if most != tt.most {
			t.Errorf("with %d left, at most %d stay: %v", tt.rest, tt.most, s.shipped)
		}
	}
}

// TestDivide: those that are worth more are served first, and all together keep no more
// than there is.
func TestDivide(t *testing.T) {
	s := shares{flood: 100, bytes: usage{1: 30, 2: 40, 3: 90, 4: 200, 5: 10}, worth: map[Source]bool{1: true, 3: true, 4: true, 9: true}}
	s.divide(400)
	kept := int64(0)
	for source, bytes := range s.bytes {
		if bytes <= s.most(source) {
			kept += bytes
		}
	}
	if !s.worth[1] || s.worth[4] || s.most(1) < 30 || s.most(5) < 10 || kept > 400 {
		t.Errorf("%+v, %d kept", s, kept)
	}
}
