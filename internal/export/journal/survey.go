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

	kept  int            // spans that no target needs
	taken map[string]int // spans that a target has had, before they were moved
}

// Surveyor looks at the same journal again and again. It reads sealed segments once. It is
// not safe for concurrent use.
type Surveyor struct {
	dir    string
	sealed map[uint64]Survey
}

// NewSurveyor returns a Surveyor of the journal in a directory.
func NewSurveyor(dir string) *Surveyor { return &Surveyor{dir: dir, sealed: make(map[uint64]Survey)} }

// Survey returns what is there now. While segments are removed, a record may be missing
// or be there twice.
func (s *Surveyor) Survey() (Survey, error) {
	all := newSurvey()
	numbers, err := listSegments(s.dir)
	if err != nil {
		return all, err
	}
	there := make(map[uint64]bool)
	for i, n := range numbers {
		there[n] = true
		one, known := s.sealed[n]
		if !known {
			if one, err = s.segment(n); err != nil {
				return all, err
			}
			if i < len(numbers)-1 {
				s.sealed[n] = one
			}
		}
		all.add(one)
	}
	maps.DeleteFunc(s.sealed, func(n uint64, _ Survey) bool { return !there[n] })
	return all, nil
}

func newSurvey() Survey {
	return Survey{Shares: make(map[Source]int64), Lost: make(map[string]int), taken: make(map[string]int)}
}

func (s *Surveyor) segment(n uint64) (Survey, error) {
	one := newSurvey()
	err := scanSegment(s.dir, n, &one.Stats, func(r Record) error {
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
		if r.Kind.Traces() {
			one.Shares[r.Source] += recordHeaderLen + int64(len(r.Payload))
		}
		return nil
	})
	return one, err
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

// Unread returns how many spans a target has not read, of those that the last Survey has
// seen; without those that are held or set aside for it.
func (s *Surveyor) Unread(c Target) (spans int, err error) {
	numbers, err := listSegments(s.dir)
	if err != nil {
		return 0, err
	}
	for _, n := range numbers {
		begun := n == c.Segment || slices.ContainsFunc(c.Behind, func(p Position) bool { return p.Segment == n })
		one, known := s.sealed[n]
		switch {
		case n < c.Segment && !begun:
		case known && !begun:
			spans += one.Spans + one.Posted - one.kept - one.taken[c.Name]
		default:
			var st Stats
			err := scanSegment(s.dir, n, &st, func(r Record) error {
				if r.Kind.Traces() && !r.Kept && !slices.Contains(r.Taken, c.Name) && !c.behind(r) {
					spans += r.Spans
				}
				return nil
			})
			if err != nil {
				return spans, err
			}
		}
	}
	return spans, nil
}

// Ends returns when the oldest segment was begun, zero if that is not known, and the number
// of the latest; 0: there is none.
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
