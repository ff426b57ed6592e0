package journal

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/private"
)

// Survey is what a journal has at one moment.
type Survey struct {
	Stats
	// Spans are shimtrace's own and those of agents and runtimes, Posted those of other
	// programs of the host.
	Spans, Posted int
	// Shares are the bytes by source.
	Shares map[Source]int64
	// Lost counts spans that were lost, by reason.
	Lost map[string]int
	// Waiting says what waits for each target that was asked for, in their order.
	Waiting []Waiting

	kept  int            // spans that no target needs
	taken map[string]int // spans that a target has had, before they were moved
}

// Waiting counts the spans in a journal that a target is still to get: those that it has
// not read, those that are held until it is decided whether they are shipped, and those
// that are set aside.
type Waiting struct {
	Spans int
	Aside int // of these, set aside
}

// Surveyor looks at the same journal again and again. It reads each sealed segment once, except
// those in which a target's cursor is. It is not safe for concurrent use.
type Surveyor struct {
	dir    string
	sealed map[uint64]Survey
}

// NewSurveyor returns a Surveyor of the journal in a directory.
func NewSurveyor(dir string) *Surveyor { return &Surveyor{dir: dir, sealed: make(map[uint64]Survey)} }

// Survey returns what is there now, and what of it waits for targets. While segments are
// removed, a record may be missing or be there twice.
func (s *Surveyor) Survey(targets ...Target) (Survey, error) {
	all := newSurvey()
	all.Waiting = make([]Waiting, len(targets))
	numbers, err := listSegments(s.dir)
	if err != nil {
		return all, err
	}
	there := make(map[uint64]bool)
	for i, n := range numbers {
		there[n] = true
		one, known := s.sealed[n]
		waits := one.waits(n, targets)
		if !known || slices.ContainsFunc(targets, func(t Target) bool { return t.within(n) }) {
			if one, waits, err = s.segment(n, targets); err != nil {
				return all, err
			}
			if i < len(numbers)-1 {
				s.sealed[n] = one
			}
		}
		all.add(one)
		for k, t := range targets {
			aside := t.aside(n)
			all.Waiting[k].Spans += waits[k] + aside
			all.Waiting[k].Aside += aside
		}
	}
	maps.DeleteFunc(s.sealed, func(n uint64, _ Survey) bool { return !there[n] })
	return all, nil
}

// within reports whether the cursor may be between two records of the segment, so that
// only these say what waits.
func (c Cursor) within(segment uint64) bool {
	return segment == c.Segment ||
		slices.ContainsFunc(c.Behind, func(p Position) bool { return p.Segment == segment }) ||
		slices.ContainsFunc(c.Held, func(r Range) bool { return r.Segment == segment })
}

// waits returns how many spans of a segment each target has not taken, if no target's cursor is
// within the segment.
func (s *Survey) waits(segment uint64, targets []Target) []int {
	all := make([]int, len(targets))
	for i, t := range targets {
		if segment > t.Segment {
			all[i] = s.Spans + s.Posted - s.kept - s.taken[t.Name]
		}
	}
	return all
}

func newSurvey() Survey {
	return Survey{Shares: make(map[Source]int64), Lost: make(map[string]int), taken: make(map[string]int)}
}

// segment reads a segment. It returns what the segment has, and how many of its spans each target
// needs.
func (s *Surveyor) segment(n uint64, targets []Target) (one Survey, waits []int, err error) {
	one, waits = newSurvey(), make([]int, len(targets))
	err = scanSegment(s.dir, n, &one.Stats, func(r Record) error {
		switch r.Kind {
		case KindTraces:
			one.Spans += r.Spans
		case KindPosted:
			one.Posted += r.Spans
		case KindDrops, KindCarried:
			if drops, err := r.Drops(); err == nil { // else written by another version
				for reason, n := range drops {
					one.Lost[reason] += n
				}
			}
		}
		if r.Kept {
			one.kept += r.Spans
		}
		for _, target := range r.Taken {
			one.taken[target] += r.Spans
		}
		if !r.Kind.Traces() {
			return nil
		}
		one.Shares[r.Source] += r.End() - r.Offset
		for i, t := range targets {
			if !r.Kept && !t.Has(r) {
				waits[i] += r.Spans
			}
		}
		return nil
	})
	return one, waits, err
}

func (s *Survey) add(o Survey) {
	s.Segments += o.Segments
	s.Records += o.Records
	s.Bytes += o.Bytes
	s.CorruptBytes += o.CorruptBytes
	s.Spans += o.Spans
	s.Posted += o.Posted
	for source, n := range o.Shares {
		s.Shares[source] += n
	}
	for reason, n := range o.Lost {
		s.Lost[reason] += n
	}
}

// Ends returns when the oldest segment was begun, zero if that is not known, and the number
// of the latest segment, 0 if there is none.
func Ends(dir string) (begun time.Time, last uint64, err error) {
	numbers, err := listSegments(dir)
	if err != nil || len(numbers) == 0 {
		return time.Time{}, 0, err
	}
	f, err := private.Open(segmentPath(dir, numbers[0]), os.O_RDONLY, 0)
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	head := make([]byte, segmentHeaderLen)
	if _, err := f.ReadAt(head, 0); err == nil {
		if _, ok := parseSegmentHeader(head); ok {
			begun = time.Unix(0, created(head))
		}
	}
	return begun, numbers[len(numbers)-1], nil
}
