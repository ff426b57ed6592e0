package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// of sets the sandbox of the spans.
func of(sandbox string, spans []*tracepb.ResourceSpans) []*tracepb.ResourceSpans {
	spans[0].Resource = &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{
		Key: sourceKeys[0], Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: sandbox}},
	}}}
	return spans
}

func uploadOf(t testing.TB, j *Journal, sandbox, name string) {
	t.Helper()
	spans := batch(name)
	if sandbox != "" {
		of(sandbox, spans)
	}
	if err := journaltest.Append(j, spans); err != nil {
		t.Error(err)
	}
}

// countNames counts spans by the first word of their names.
func countNames(names []string) map[string]int {
	counts := make(map[string]int)
	for _, n := range names {
		word, _, _ := strings.Cut(n, " ")
		counts[word]++
	}
	return counts
}

func journalBytes(t testing.TB, dir string) (size int64) {
	t.Helper()
	for _, n := range segments(t, dir) {
		if info, err := os.Stat(segmentPath(dir, n)); err == nil {
			size += info.Size()
		}
	}
	return size
}

var (
	sharing = Options{SegmentBytes: 8 << 10, MaxBytes: 256 << 10}
	pad     = strings.Repeat("x", 400)
)

// TestAFloodCostsItself: a sandbox that fills the journal many times over, in the same
// process as the others or in another, loses only its own spans, for a reason that says
// so.
func TestAFloodCostsItself(t *testing.T) {
	const quiet, each, flood = 5, 10, 2000
	for _, shipped := range []bool{false, true} {
		t.Run(fmt.Sprintf("shipped=%v", shipped), func(t *testing.T) {
			o := sharing
			o.Shipped = shipped
			dir := t.TempDir()
			flooder := open(t, dir, o)
			var quietOnes [quiet]*Journal
			for i := range quietOnes {
				quietOnes[i] = open(t, dir, o)
			}
			host := open(t, dir, o)
			host.Losses(losses.Ours).Add(losses.Undecodable, 3)
			for i := range flood {
				uploadOf(t, flooder, "flooder", fmt.Sprintf("flooder %d %s", i, pad))
				if i%(flood/each) == 0 {
					for k, j := range quietOnes {
						uploadOf(t, j, fmt.Sprint("quiet", k), fmt.Sprintf("quiet%d %d %s", k, i, pad))
					}
					uploadOf(t, host, "", fmt.Sprintf("host %d %s", i, pad))
				}
				if i%5 != 0 {
					continue
				}
				if size := journalBytes(t, dir); size > o.MaxBytes {
					t.Fatalf("%d bytes after %d", size, i)
				}
			}
			names, drops, st := readAll(t, dir)
			counts := countNames(names)
			for k := range quiet {
				if n := counts[fmt.Sprint("quiet", k)]; n != each {
					t.Errorf("sandbox %d has %d of its %d spans", k, n, each)
				}
			}
			if counts["host"] != each || drops["undecodable"] != 3 {
				t.Errorf("the host has %d of its %d spans, drops %v", counts["host"], each, drops)
			}
			if counts["flooder"]+drops["over_share"] != flood || len(drops) != 2 || st.CorruptBytes != 0 {
				t.Errorf("the flooder has %d spans of %d, drops %v", counts["flooder"], flood, drops)
			}
			if want := int(o.MaxBytes) / 3 / len(pad); counts["flooder"] < want {
				t.Errorf("the flooder has %d spans, there is room for %d", counts["flooder"], want)
			}
		})
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Guests",
		Fault: "a sandbox's spans fill the journal many times over",
		Pod:   "nothing",
		Lost:  "the oldest spans of that sandbox: `over_share`; no other sandbox's",
	})
}

// TestManyFloods: a source with less than an equal part keeps everything, however many
// have more.
func TestManyFloods(t *testing.T) {
	const floods, each = 6, 600
	dir := t.TempDir()
	j := open(t, dir, sharing)
	for i := range each {
		for k := range floods {
			uploadOf(t, j, fmt.Sprint("flooder", k), fmt.Sprintf("flooder%d %s", k, pad))
		}
		if i%100 == 0 {
			uploadOf(t, j, "quiet", "quiet "+pad)
		}
	}
	names, drops, _ := readAll(t, dir)
	counts := countNames(names)
	if counts["quiet"] != each/100 {
		t.Errorf("the quiet one has %d spans of %d", counts["quiet"], each/100)
	}
	left := 0
	for k := range floods {
		left += counts[fmt.Sprint("flooder", k)]
	}
	if left+drops["over_share"]+drops["retention"] != floods*each {
		t.Errorf("%d spans are left, drops %v, of %d", left, drops, floods*each)
	}
}

// TestEqualsGoByAge: if all have about the same, the oldest records are removed, and
// that is no loss.
func TestEqualsGoByAge(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, sharing)
	const total, sandboxes = 2000, 20
	for i := range total {
		uploadOf(t, j, fmt.Sprint("pod", i%sandboxes), fmt.Sprintf("%d %s", i, pad))
	}
	names, drops, _ := readAll(t, dir)
	if len(names)+drops["retention"] != total || len(drops) != 1 {
		t.Errorf("%d spans are left, drops %v", len(names), drops)
	}
	for i, name := range names {
		if want := fmt.Sprint(total - len(names) + i); !strings.HasPrefix(name, want+" ") {
			t.Fatalf("span %d is %.8s, want %s", i, name, want)
		}
	}
}

// TestOldSharesEnd: in a journal that nobody ships, a share lasts an hour.
func TestOldSharesEnd(t *testing.T) {
	now := time.Now()
	s := shares{now: now, aged: true, bytes: usage{1: 10, 2: 1000}, level: 100, flood: 500}
	for _, tt := range []struct {
		r             Record
		keeps, floods bool
	}{
		{Record{Source: 1, Time: now}, true, false},
		{Record{Source: 2, Time: now}, false, true},
		{Record{Source: 3, Time: now}, true, false},
		{Record{Source: 1, Time: now.Add(-2 * shareTime)}, false, false},
		{Record{Source: 2, Time: now.Add(-2 * shareTime)}, false, false},
	} {
		if s.keeps(tt.r) != tt.keeps || s.floods(tt.r) != tt.floods {
			t.Errorf("%+v: kept %v, flood %v", tt.r, s.keeps(tt.r), s.floods(tt.r))
		}
	}
	s.aged = false
	if !s.keeps(Record{Source: 1, Time: now.Add(-2 * shareTime)}) {
		t.Error("what waits for the shipper is lost by age")
	}
	s.bytes = usage{2: 1000}
	if s.floods(Record{Source: 2, Time: now}) {
		t.Error("the only one has a flood, which costs nobody anything")
	}
}

func TestLevel(t *testing.T) {
	for _, tt := range []struct {
		want  []int64
		total int64
		level int64
	}{
		{nil, 100, 0},
		{[]int64{10, 20, 30}, 100, 30}, // all that they want
		{[]int64{50, 50, 50, 50}, 100, 25},
		{[]int64{10, 20, 1000}, 100, 70},
		{[]int64{10, 1000, 1000}, 100, 45},
		{[]int64{1000}, 100, 100},
	} {
		if got := level(tt.want, tt.total); got != tt.level {
			t.Errorf("level(%v, %d) = %d, want %d", tt.want, tt.total, got, tt.level)
		}
	}
}

// TestShippedSharesAreNotMoved: records that the shipper has read are removed with
// their segment.
func TestShippedSharesAreNotMoved(t *testing.T) {
	o := sharing
	o.Shipped = true
	dir := t.TempDir()
	j := open(t, dir, o)
	f := Follow(dir, Cursor{})
	defer f.Close()
	seen := make(map[string]int)
	for i := range 2000 {
		uploadOf(t, j, "flooder", fmt.Sprintf("flooder%d %s", i, pad))
		if i%50 == 0 {
			uploadOf(t, j, "quiet", fmt.Sprintf("quiet%d %s", i, pad))
		}
		for {
			r, err := f.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind == KindTraces {
				for name, n := range countNames(spanNames(t, r)) {
					seen[name] += n
				}
			}
		}
		if i%10 == 0 {
			if err := WriteCursor(dir, "", f.Cursor()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, drops, _ := readAll(t, dir); len(drops) != 0 || len(seen) != 2040 {
		t.Errorf("%d of 2040 spans were read, drops %v", len(seen), drops)
	}
	for name, n := range seen {
		if n != 1 {
			t.Fatalf("%s was read %d times", name, n)
		}
	}
}

// TestSharesOfManyWriters: when several processes remove segments at the same time,
// every span is kept or counted, once.
func TestSharesOfManyWriters(t *testing.T) {
	dir := t.TempDir()
	// A writer that gets no processor is not taken for a stopped one: what that has moved,
	// those who go on without it count as lost as well.
	o := Options{SegmentBytes: 64 << 10, MaxBytes: 1 << 20, LockWait: time.Minute}
	const writers, each = 6, 2000
	var running sync.WaitGroup
	for w := range writers {
		j := open(t, dir, o)
		running.Go(func() {
			n := each
			if w%2 == 1 {
				n = each / 20
			}
			for i := range n {
				uploadOf(t, j, fmt.Sprint("pod", w), fmt.Sprintf("pod%d %d %s", w, i, pad))
			}
			if err := j.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	names, drops, _ := readAll(t, dir)
	counts := countNames(names)
	left, lost := 0, 0
	for w := range writers {
		left += counts[fmt.Sprint("pod", w)]
		if w%2 == 1 && counts[fmt.Sprint("pod", w)] != each/20 {
			t.Errorf("writer %d has %d spans, drops %v", w, counts[fmt.Sprint("pod", w)], drops)
		}
	}
	for _, n := range drops {
		lost += n
	}
	if want := writers/2*each + writers/2*each/20; left+lost != want || left != len(names) {
		t.Errorf("%d spans are left, %v lost, of %d", left, drops, want)
	}
}

// TestCapWithAStoppedProcess: a process stopped while it removes a segment does not let
// the journal grow.
func TestCapWithAStoppedProcess(t *testing.T) {
	o := sharing
	o.LockWait = time.Millisecond
	dir := t.TempDir()
	j := open(t, dir, o)
	uploadOf(t, j, "quiet", "quiet "+pad)
	holder, err := openSegment(dir, segments(t, dir)[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	for i := range 900 {
		uploadOf(t, j, "flooder", fmt.Sprintf("flooder %d %s", i, pad))
		if i == 100 {
			if err := host.Lock(holder, unix.LOCK_EX, 0); err != nil {
				t.Fatal(err)
			}
		}
		if size := journalBytes(t, dir); size > o.MaxBytes+o.SegmentBytes {
			t.Fatalf("%d bytes after %d", size, i)
		}
	}
	names, drops, _ := readAll(t, dir)
	lost := 0
	for _, n := range drops {
		lost += n
	}
	if len(names)+lost != 901 {
		t.Errorf("%d spans are left, drops %v", len(names), drops)
	}
}

// TestSourceIsKept in a record, beside its kind, and moves with it; readers of earlier
// versions see only the kind.
func TestSourceIsKept(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	uploadOf(t, j, "box", "a")
	uploadOf(t, j, "", "b")
	var sources []Source
	var moved Record
	if _, err := Scan(dir, func(r Record) error {
		sources = append(sources, r.Source)
		if r.Kind != KindTraces {
			t.Errorf("kind %d", r.Kind)
		}
		if len(sources) == 1 {
			moved = r
			moved.Payload = append([]byte(nil), r.Payload...)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(sources) != 2 || sources[0] == 0 || sources[0] >= 1<<24 || sources[1] != 0 {
		t.Errorf("sources %v", sources)
	}
	if err := j.move(moved, moved.Kind, nil); err != nil {
		t.Fatal(err)
	}
	var last Record
	if _, err := Scan(dir, func(r Record) error { last = r; return nil }); err != nil {
		t.Fatal(err)
	}
	if last.Source != moved.Source || !last.Time.Equal(moved.Time) || last.Spans != moved.Spans {
		t.Errorf("moved %+v, was %+v", last, moved)
	}
}
