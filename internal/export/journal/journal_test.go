package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// batch is one ResourceSpans with the named spans.
func batch(names ...string) []*tracepb.ResourceSpans {
	ss := &tracepb.ScopeSpans{}
	for _, n := range names {
		ss.Spans = append(ss.Spans, &tracepb.Span{Name: n, TraceId: make([]byte, 16), SpanId: make([]byte, 8)})
	}
	return []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{ss}}}
}

func spanNames(t testing.TB, r Record) (names []string) {
	t.Helper()
	td, err := r.Traces()
	if err != nil {
		t.Fatal(err)
	}
	for _, rs := range td.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				names = append(names, s.Name)
			}
		}
	}
	if len(names) != r.Spans {
		t.Fatalf("record says %d spans, has %d", r.Spans, len(names))
	}
	return names
}

// readAll scans the journal for the names of all spans and the totals of drops.
func readAll(t testing.TB, dir string) (names []string, drops map[string]int, st Stats) {
	t.Helper()
	drops = make(map[string]int)
	st, err := Scan(dir, func(r Record) error {
		if r.Kind == KindTraces {
			names = append(names, spanNames(t, r)...)
			return nil
		}
		d, err := r.Drops()
		for reason, n := range d {
			drops[reason] += n
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, drops, st
}

func open(t testing.TB, dir string, o Options) *Journal {
	t.Helper()
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func upload(t testing.TB, j *Journal, names ...string) {
	t.Helper()
	if err := journaltest.Append(j, batch(names...)); err != nil {
		t.Fatal(err)
	}
}

func segments(t testing.TB, dir string) []uint64 {
	t.Helper()
	n, err := listSegments(dir)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAppendAndScan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "journal")
	j := open(t, dir, Options{})
	if n := segments(t, dir); len(n) != 0 {
		t.Fatalf("segments before the first append: %v", n)
	}
	upload(t, j, "one", "two")
	j.Losses(losses.Ours).Add(losses.QueueFull, 3)
	j.Losses(losses.Ours).Add(losses.QueueFull, 2)
	upload(t, j, "three")
	j.Losses(losses.Agents).Add(losses.CPU, 1)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if n := j.Written(); n != 3 {
		t.Errorf("%d spans are written", n)
	}
	names, drops, st := readAll(t, dir)
	if got := strings.Join(names, " "); got != "one two three" {
		t.Errorf("spans: %s", got)
	}
	if drops["queue_full"] != 5 || drops["agent: cpu"] != 1 || len(drops) != 2 {
		t.Errorf("drops: %v", drops)
	}
	if st.CorruptBytes != 0 || st.Segments != 1 || st.Records != 4 {
		t.Errorf("stats: %+v", st)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	if err := journaltest.Append(j, batch("x")); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestScanOfNothing(t *testing.T) {
	st, err := Scan(filepath.Join(t.TempDir(), "none"), func(Record) error { return errors.New("called") })
	if err != nil || st != (Stats{}) {
		t.Fatalf("%+v, %v", st, err)
	}
}

func TestScanStopsAtCallersError(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	upload(t, j, "a")
	upload(t, j, "b")
	stop, calls := errors.New("stop"), 0
	_, err := Scan(j.Dir(), func(Record) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Fatalf("%d calls, %v", calls, err)
	}
}

func TestReasonsAreBounded(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	for i := range 1000 {
		j.carried.add(fmt.Sprintf("reason %d", i), 1)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	_, drops, _ := readAll(t, j.Dir())
	sum := 0
	for _, n := range drops {
		sum += n
	}
	if len(drops) != maxReasons+1 || sum != 1000 {
		t.Fatalf("%d reasons, %d spans", len(drops), sum)
	}
}

func TestLargeBatchesAreSplit(t *testing.T) {
	j := open(t, t.TempDir(), Options{SegmentBytes: 8 << 10, MaxBytes: 1 << 20})
	var want []string
	for i := range 40 {
		want = append(want, fmt.Sprintf("%02d%s", i, strings.Repeat("x", 1000)))
	}
	all := batch(want[:20]...)
	all = append(all, batch(want[20:]...)...)
	all[1].ScopeSpans = append(all[1].ScopeSpans, batch("last")[0].ScopeSpans...)
	if err := journaltest.Append(j, all); err != nil {
		t.Fatal(err)
	}
	names, drops, _ := readAll(t, j.Dir())
	if strings.Join(names, " ") != strings.Join(append(want, "last"), " ") || len(drops) != 0 {
		t.Errorf("%d spans, drops %v", len(names), drops)
	}

	err := journaltest.Append(j, batch("small", strings.Repeat("y", 9000), "small too"))
	if err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a span larger than a segment: %v", err)
	}
	names, drops, _ = readAll(t, j.Dir())
	if drops["too_large"] != 1 || names[len(names)-1] != "small too" {
		t.Errorf("drops %v, last span %q", drops, names[len(names)-1])
	}
}

func TestRotationAndRetention(t *testing.T) {
	const segment, max = 4 << 10, 16 << 10
	for _, shipped := range []bool{false, true} {
		t.Run(fmt.Sprintf("shipped=%v", shipped), func(t *testing.T) {
			j := open(t, t.TempDir(), Options{SegmentBytes: segment, MaxBytes: max, Shipped: shipped})
			j.Losses(losses.Runtimes).Add(losses.UnknownSandbox, 7)
			const total = 200
			for i := range total {
				upload(t, j, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 300)))
				var size int64
				for _, n := range segments(t, j.Dir()) {
					info, err := os.Stat(segmentPath(j.Dir(), n))
					if err != nil || info.Size() > segment {
						t.Fatal(info, err)
					}
					size += info.Size()
				}
				if size > max {
					t.Fatalf("%d bytes after append %d", size, i)
				}
			}
			names, drops, _ := readAll(t, j.Dir())
			reason := map[bool]string{false: "retention", true: "journal_full"}[shipped]
			if len(names)+drops[reason] != total || drops[reason] == 0 {
				t.Errorf("%d spans are left, drops %v, appended %d", len(names), drops, total)
			}
			if drops["runtime: unknown_sandbox"] != 7 {
				t.Errorf("counts of a removed segment are not carried on: %v", drops)
			}
			if !strings.HasPrefix(names[len(names)-1], "199") {
				t.Errorf("the last span is %.3s", names[len(names)-1])
			}
		})
	}
}

func TestShippedSpansAreNotLost(t *testing.T) {
	j := open(t, t.TempDir(), Options{SegmentBytes: 4 << 10, MaxBytes: 16 << 10, Shipped: true})
	f := Follow(j.Dir(), Cursor{})
	defer f.Close()
	read := 0
	for i := range 200 {
		upload(t, j, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 300)))
		for {
			r, err := f.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.Kind == KindTraces {
				read++
			}
		}
		if err := WriteCursor(j.Dir(), "", f.Cursor()); err != nil {
			t.Fatal(err)
		}
	}
	_, drops, _ := readAll(t, j.Dir())
	if read != 200 || len(drops) != 0 {
		t.Fatalf("followed %d of 200, drops %v", read, drops)
	}
}

func TestStuckWriterStopsNobody(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	upload(t, j, "before")
	stuck := segments(t, dir)[0]
	holder, err := openSegment(dir, stuck, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if err := host.Lock(holder, unix.LOCK_EX, 0); err != nil {
		t.Fatal(err)
	}

	f := Follow(dir, Cursor{})
	defer f.Close()
	upload(t, j, "meanwhile")
	other := open(t, dir, Options{})
	upload(t, other, "elsewhere")
	if n := segments(t, dir); len(n) != 2 || n[1] != stuck+1 {
		t.Fatalf("segments: %v", n)
	}

	got := follow(t, f, 3)
	if strings.Join(got, " ") != "before meanwhile elsewhere" {
		t.Fatalf("followed %v", got)
	}
	c := f.Cursor()
	if len(c.Behind) != 1 || c.Behind[0].Segment != stuck {
		t.Fatalf("cursor: %+v", c)
	}

	// The holder wakes up and finishes its append.
	m, err := readMarker(holder)
	if err != nil {
		t.Fatal(err)
	}
	late := &Journal{dir: dir, file: holder, number: stuck}
	payload, _ := appendDrops(late.room(0), map[string]int{"late": 1})
	record := payload[segmentHeaderLen:]
	putRecordHeader(record, m, entry{kind: KindDrops, spans: 1, time: time.Now()})
	if _, err := holder.Write(record); err != nil {
		t.Fatal(err)
	}
	host.Unlock(holder)

	// Another follower goes on from the cursor, as after a restart.
	f2 := Follow(dir, c)
	defer f2.Close()
	r, err := f2.Next()
	if err != nil || r.Kind != KindDrops || r.Segment != stuck {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := f2.Next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if c := f2.Cursor(); len(c.Behind) != 0 || c.Segment != stuck+1 {
		t.Fatalf("cursor: %+v", c)
	}
}

// follow reads until it has the names of n spans.
func follow(t testing.TB, f *Follower, n int) (names []string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); len(names) < n; {
		r, err := f.Next()
		switch {
		case err == nil && r.Kind == KindTraces:
			names = append(names, spanNames(t, r)...)
		case err == nil:
		case !errors.Is(err, io.EOF):
			t.Fatal(err)
		case time.Now().After(deadline):
			t.Fatalf("followed only %v", names)
		default:
			time.Sleep(10 * time.Millisecond)
		}
	}
	return names
}

func TestJournalIsRemovedUnderAWriter(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j := open(t, dir, Options{})
	upload(t, j, "old")
	f := Follow(dir, Cursor{})
	defer f.Close()
	follow(t, f, 1)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	upload(t, j, "new")
	names, _, _ := readAll(t, dir)
	if strings.Join(names, " ") != "new" {
		t.Errorf("after removal: %v", names)
	}
	if got := follow(t, f, 1); got[0] != "new" {
		t.Errorf("followed %v", got)
	}
}

func TestCursor(t *testing.T) {
	dir := t.TempDir()
	if c, err := ReadCursor(dir, ""); err != nil || c.Segment != 0 {
		t.Errorf("no cursor: %+v, %v", c, err)
	}
	want := Cursor{Position: Position{Segment: 5, Offset: 32}, Behind: []Position{{Segment: 3, Offset: 7}}}
	if err := WriteCursor(dir, "", want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadCursor(dir, "")
	if err != nil || got.Position != want.Position || got.Behind[0] != want.Behind[0] {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, cursorName("")), []byte(`{"segm`), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := ReadCursor(dir, ""); err == nil || c.Segment != 0 {
		t.Errorf("torn cursor: %+v, %v", c, err)
	}
	for _, tc := range []struct {
		r    Record
		want bool
	}{
		{Record{Segment: 2, Offset: 99}, true},
		{Record{Segment: 3, Offset: 6}, true},
		{Record{Segment: 3, Offset: 7}, false},
		{Record{Segment: 5, Offset: 31}, true},
		{Record{Segment: 5, Offset: 32}, false},
		{Record{Segment: 6, Offset: 0}, false},
	} {
		if want.passed(tc.r) != tc.want {
			t.Errorf("passed(%d:%d) = %v", tc.r.Segment, tc.r.Offset, !tc.want)
		}
	}
}

func TestFollowerResumes(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{SegmentBytes: 4 << 10})
	var want []string
	for i := range 60 {
		want = append(want, fmt.Sprintf("%02d%s", i, strings.Repeat("x", 500)))
		upload(t, j, want[i])
	}
	var got []string
	c := Cursor{}
	for len(got) < len(want) {
		f := Follow(dir, c)
		r, err := f.Next()
		if err != nil {
			t.Fatalf("after %d: %v", len(got), err)
		}
		got = append(got, spanNames(t, r)...)
		c = f.Cursor()
		f.Close()
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Error("not the same spans")
	}
	f := Follow(dir, c)
	defer f.Close()
	if _, err := f.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	upload(t, j, "more")
	if got := follow(t, f, 1); got[0] != "more" {
		t.Error(got)
	}
}

func TestFollowerOfAnotherJournal(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	upload(t, j, "a")
	future := Cursor{Position: Position{Segment: segments(t, dir)[0] + 1000, Offset: 5}}
	past := Cursor{Position: Position{Segment: 1, Offset: 5}}
	for _, c := range []Cursor{future, past} {
		f := Follow(dir, c)
		if got := follow(t, f, 1); got[0] != "a" {
			t.Error(got)
		}
		f.Close()
	}
}

func TestShippingLock(t *testing.T) {
	dir := t.TempDir()
	f, err := LockShipping(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockShipping(dir, ""); !errors.Is(err, ErrShipped) {
		t.Errorf("second lock: %v", err)
	}
	f.Close()
	f, err = LockShipping(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
