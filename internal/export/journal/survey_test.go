package journal

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestSurvey: a survey that knows the sealed segments says what a new one says, and what a
// reader of all records says; also of a journal that is full.
func TestSurvey(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{SegmentBytes: 4 << 10, MaxBytes: 40 << 10, Shipped: true})
	s := NewSurveyor(dir)
	f := Follow(dir, Cursor{})
	defer f.Close()
	two := Follow(dir, Cursor{})
	defer two.Close()
	targets := []Target{{}, {Name: "two"}, {Name: "new"}}
	reads := []*Follower{f, two}
	read, taken := 0, 0
	for i := range 400 {
		upload(t, j, fmt.Sprint("span ", i), "another")
		if i%25 == 0 {
			uploadOf(t, j, "quiet", fmt.Sprint("quiet ", i))
		}
		if i%7 == 0 {
			j.Losses(losses.Ours).Add(losses.QueueFull, 1)
		}
		if i%50 == 3 { // a reader that is not at the end
			for k, f := range reads {
				var last Record
				for range 20 * (k + 1) {
					if r, err := f.Next(); err == nil {
						last = r
						read++
					}
				}
				c := &targets[k].Cursor
				at := Range{Position: Position{last.Segment, last.Offset}, End: last.End(), Spans: last.Spans}
				if i%100 == 3 {
					c.Held = append(c.Held, at)
				} else {
					c.Aside = append(c.Aside, at)
				}
				c.Position, c.Behind = f.Cursor().Position, f.Cursor().Behind
			}
			for _, target := range targets {
				if err := WriteCursor(dir, target.Name, target.Cursor); err != nil {
					t.Fatal(err)
				}
			}
		}
		if i%20 != 0 {
			continue
		}
		got, err := s.Survey(targets...)
		if err != nil {
			t.Fatal(err)
		}
		spans, lost, bytes := 0, make(map[string]int), int64(0)
		waiting := make([]Waiting, len(targets))
		st, err := Scan(dir, func(r Record) error {
			if r.Kind == KindDrops || r.Kind == KindCarried {
				drops, err := r.Drops()
				for reason, n := range drops {
					lost[reason] += n
				}
				return err
			}
			spans += r.Spans
			taken += len(r.Taken)
			bytes += r.End() - r.Offset
			for k, target := range targets {
				at := Position{r.Segment, r.Offset}
				aside := slices.ContainsFunc(target.Cursor.Aside, func(a Range) bool { return a.Position == at })
				if aside {
					waiting[k].Aside += r.Spans
				}
				if aside || !target.Has(r) {
					waiting[k].Spans += r.Spans
				}
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
		if !slices.Equal(got.Waiting, waiting) {
			t.Fatalf("after %d: %+v waits, want %+v", i, got.Waiting, waiting)
		}
	}
	if read == 0 || taken == 0 || len(s.sealed) == 0 {
		t.Errorf("%d records read, %d moved for some targets, %d segments sealed", read, taken, len(s.sealed))
	}
}

func TestSurveyOfNothing(t *testing.T) {
	s := NewSurveyor(t.TempDir() + "/none")
	if got, err := s.Survey(Target{}); err != nil || got.Segments != 0 || got.Spans != 0 || got.Waiting[0].Spans != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
