package ship

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestSplitKeepsEverySpan divides parts of any shape down to single spans: each is
// there once, and resources are separated before any is divided.
func TestSplitKeepsEverySpan(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var p part
		var want []string
		for r := range 1 + random.IntN(12) {
			id := &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: int64(random.IntN(4))}}
			rs := &tracepb.ResourceSpans{Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: "id", Value: id}}}}
			for s := range 1 + random.IntN(3) {
				ss := &tracepb.ScopeSpans{}
				for k := range 1 + random.IntN(5) {
					name := fmt.Sprint(r, "-", s, "-", k)
					ss.Spans = append(ss.Spans, &tracepb.Span{Name: name})
					want = append(want, name)
				}
				rs.ScopeSpans = append(rs.ScopeSpans, ss)
			}
			at := journal.Range{Position: journal.Position{Segment: uint64(r / 3), Offset: int64(r * 100)}, End: int64(r*100 + 100)}
			p = append(p, piece{spans: rs, record: at})
		}
		var got []string
		for stack := []part{p}; len(stack) > 0; {
			q := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			mixed, spans := q.resources(), q.count()
			inRanges := 0
			for _, r := range q.ranges() {
				inRanges += r.Spans
			}
			if inRanges != spans {
				t.Fatalf("%d spans, %d in the ranges", spans, inRanges)
			}
			a, b, ok := q.split()
			switch {
			case !ok && spans != 1:
				t.Fatalf("%d spans are not divided", spans)
			case !ok:
				got = append(got, spanNames(q.data())...)
			case a.count() == 0 || b.count() == 0 || a.count()+b.count() != spans:
				t.Fatalf("%d spans became %d and %d", spans, a.count(), b.count())
			case mixed && slices.ContainsFunc(a, func(x piece) bool { return slices.ContainsFunc(b, func(y piece) bool { return x.key == y.key }) }):
				t.Fatal("a resource is in both parts")
			default:
				stack = append(stack, a, b)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

// TestKilledShipperLosesNothing copies the journal at any moment, with what is set
// aside, and ships the copy with another shipper.
func TestKilledShipperLosesNothing(t *testing.T) {
	j := openJournal(t, journal.Options{SegmentBytes: 8 << 10})
	b := &backend{answer: on("bad", &RejectedError{Reason: losses.CollectorTooLarge, Spans: AllSpans, Tries: 1 << 30, Err: errDoubt})}
	s := fast(j, b)
	s.BatchBytes = 1 << 10
	stop := start(t, s)
	var want []string
	for i := range 60 {
		names := named(fmt.Sprint("good", i, "-"), 5)
		if i%7 == 3 {
			names = append(names, fmt.Sprint("bad", i))
		}
		recordOf(t, j, fmt.Sprint("sandbox", i), names...)
		want = append(want, names...)
		if i%10 != 9 {
			continue
		}
		// Copy first: what is behind the copy's cursor has been taken.
		other := &backend{}
		copied := fast(j, other)
		copied.Dir, copied.Once, copied.Journal = copyOf(t, j.Dir()), true, nil
		have := b.taken()
		if err := copied.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		have = append(have, other.taken()...)
		for _, n := range want {
			if !slices.Contains(have, n) {
				t.Errorf("after %d records: %s is lost", i+1, n)
			}
		}
	}
	_ = stop()
}

// copyOf copies the cursor first: what is before it has been taken.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append([]string{filepath.Join(dir, "shipped.json")}, files...) {
		text, err := os.ReadFile(f)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(f)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}
