package journal

import (
	"errors"
	"io"
	"maps"
	"slices"
	"testing"
)

// reader is what a target has got of a journal, by record's time.
type reader struct {
	Target
	f     *Follower
	times map[int64]int
}

func newReader(t *testing.T, dir, name string) *reader {
	t.Helper()
	if err := Begin(dir, name); err != nil {
		t.Fatal(err)
	}
	return &reader{Target{Name: name}, Follow(dir, Cursor{}), make(map[int64]int)}
}

// read reads to the end, as a shipper does.
func (r *reader) read(t *testing.T, dir string) {
	t.Helper()
	for {
		record, err := r.f.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if record.Kind.Traces() && !record.Kept && !slices.Contains(record.Taken, r.Name) {
			r.times[record.Time.UnixNano()] += record.Spans
		}
	}
	if err := WriteCursor(dir, r.Name, r.f.Cursor()); err != nil {
		t.Fatal(err)
	}
}

// TestCapWithTargets: while one target is behind, the cap moves what is within its
// sandbox's share on for this one alone: the other gets every record once. What the one
// loses is counted under its name.
func TestCapWithTargets(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{SegmentBytes: 4 << 10, MaxBytes: 40 << 10, Shipped: true})
	ahead, behind := newReader(t, dir, ""), newReader(t, dir, "behind")
	defer ahead.f.Close()
	defer behind.f.Close()
	calm := 0
	for n := range 600 {
		if n%60 == 0 {
			uploadOf(t, j, "calm", "span")
			calm++
		}
		uploadOf(t, j, "flood", "span")
		if n%5 == 0 {
			ahead.read(t, dir)
		}
	}
	ahead.read(t, dir)
	behind.read(t, dir)
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := len(ahead.times); got != 600+calm {
		t.Errorf("the target ahead has got %d records of %d", got, 600+calm)
	}
	for at, n := range ahead.times {
		if n != 1 {
			t.Errorf("the record of %d came %d times", at, n)
		}
	}
	lost, moved := make(map[string]int), 0
	if _, err := Scan(dir, func(r Record) error {
		if len(r.Taken) > 0 {
			moved++
		}
		drops, _ := r.Drops()
		for reason, n := range drops {
			lost[reason] += n
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if moved == 0 {
		t.Error("nothing was moved: the test shows nothing")
	}
	sum := 0
	for n := range maps.Values(lost) {
		sum += n
	}
	if got := len(behind.times); got+sum != 600+calm || lost["behind: over_share"] != sum || sum == 0 {
		t.Errorf("the target behind has got %d records of %d; lost %v", got, 600+calm, lost)
	}
}

// FuzzTaken: names before a payload are read as they were written, and nothing else is.
func FuzzTaken(f *testing.F) {
	f.Add(appendTaken(nil, []string{"", "a"}))
	f.Add([]byte{1, 0})
	f.Add([]byte{0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		names, n, ok := parseTaken(b)
		if !ok {
			return
		}
		if again := appendTaken(nil, names); string(again) != string(b[:n]) {
			t.Errorf("%q became %q", b[:n], again)
		}
	})
}
