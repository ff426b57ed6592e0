package journal

import (
	"fmt"
	"maps"
	"testing"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestSurvey: a survey that knows the sealed segments says what a new one says, and what a
// reader of all records says; also of a journal that is full.
func TestSurvey(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{SegmentBytes: 4 << 10, MaxBytes: 40 << 10})
	s := NewSurveyor(dir)
	f := Follow(dir, Cursor{})
	defer f.Close()
	read := 0
	for i := range 400 {
		upload(t, j, fmt.Sprint("span ", i), "another")
		if i%7 == 0 {
			j.Losses(losses.Ours).Add(losses.QueueFull, 1)
		}
		if i%50 == 3 { // a reader that is not at the end
			for range 20 {
				if _, err := f.Next(); err == nil {
					read++
				}
			}
		}
		if i%20 != 0 {
			continue
		}
		got, err := s.Survey()
		if err != nil {
			t.Fatal(err)
		}
		spans, lost, bytes, unread := 0, make(map[string]int), int64(0), 0
		at := f.Cursor()
		st, err := Scan(dir, func(r Record) error {
			if r.Kind == KindDrops || r.Kind == KindCarried {
				drops, err := r.Drops()
				for reason, n := range drops {
					lost[reason] += n
				}
				return err
			}
			spans += r.Spans
			bytes += r.End() - r.Offset
			if !at.behind(r) {
				unread += r.Spans
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var shares int64
		for _, n := range got.Shares {
			shares += n
		}
		if got.Spans != spans || got.Posted != 0 || !maps.Equal(got.Lost, lost) || shares != bytes || got.Bytes != st.Bytes || got.Segments != st.Segments {
			t.Fatalf("after %d: %+v, want %d spans, lost %v, %d of %d bytes", i, got, spans, lost, bytes, st.Bytes)
		}
		if n, err := s.Unread(Target{Cursor: at}); err != nil || n != unread {
			t.Fatalf("after %d: %d unread, want %d: %v", i, n, unread, err)
		}
	}
	if read == 0 || len(s.sealed) == 0 {
		t.Errorf("%d records read, %d segments sealed", read, len(s.sealed))
	}
}

func TestSurveyOfNothing(t *testing.T) {
	s := NewSurveyor(t.TempDir() + "/none")
	if got, err := s.Survey(); err != nil || got.Segments != 0 || got.Spans != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if n, err := s.Unread(Target{}); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
