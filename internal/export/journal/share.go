package journal

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/private"
)

const (
	// shareTime is how long a sandbox's share is kept in a journal that nobody ships.
	// What is older goes with its segment, so that no share outlives its use.
	shareTime = time.Hour
	// sharedSegments is the least number of segments that the cap must have room for.
	// Below that there are no shares.
	sharedSegments = 8
	// floodPart is the part of the cap that a sandbox must have to be told that its
	// spans were lost for that, not by age.
	floodPart = 8
)

// usage is how many bytes of a segment are whose.
type usage map[Source]int64

// used returns the usage of a sealed segment. That does not change any more.
func (j *Journal) used(segment uint64) usage {
	if u, ok := j.usages[segment]; ok {
		return u
	}
	u, err := readUsage(j.dir, segment)
	if err != nil {
		return nil // looked at again the next time
	}
	if j.usages == nil {
		j.usages = make(map[uint64]usage)
	}
	j.usages[segment] = u
	return u
}

// readUsage goes from header to header. What the payloads are is for readers to check.
func readUsage(dir string, segment uint64) (usage, error) {
	u := make(usage)
	f, err := private.Open(segmentPath(dir, segment), os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, _, err := stat(f)
	if err != nil || size <= segmentHeaderLen {
		return u, err
	}
	m, err := readMarker(f)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 4<<10)
	var start, end int64 // what of the segment buf has
	for off := int64(segmentHeaderLen); off+recordHeaderLen <= size; {
		if off+recordHeaderLen > end {
			n, err := f.ReadAt(buf, off)
			if n < recordHeaderLen {
				return nil, err
			}
			start, end = off, off+int64(n)
		}
		b := buf[off-start:]
		h := parseRecordHeader(b)
		if !bytes.Equal(b[:len(m)], m[:]) {
			break // damaged: the rest counts for nobody
		}
		n := int64(recordHeaderLen) + int64(h.length)
		if h.kind == KindTraces {
			u[h.source] += n
		}
		off += n
	}
	return u, nil
}

// shares says who keeps what when the journal is full.
type shares struct {
	now   time.Time
	aged  bool // what is old is kept for nobody
	bytes usage
	level int64 // what everybody may have
	flood int64 // who has more than that is told so
}

// newShares divides one half of the cap among those who have something in the sealed
// segments, of which the first ones have been shipped: who has less than an equal part
// has all of his, and what he does not need is for the others (max-min fairness). The
// other half is room for what is new, so that at most as much is moved as is removed.
func (j *Journal) newShares(sealed []uint64, shipped Cursor) shares {
	s := shares{now: time.Now(), aged: !j.opts.Shipped, bytes: make(usage), flood: j.opts.MaxBytes / floodPart}
	maps.DeleteFunc(j.usages, func(n uint64, _ usage) bool { return n < sealed[0] })
	if j.opts.MaxBytes < sharedSegments*j.opts.SegmentBytes {
		s.level = -1
		return s
	}
	for _, n := range sealed {
		if n < shipped.Segment {
			continue
		}
		for source, bytes := range j.used(n) {
			s.bytes[source] += bytes
		}
	}
	s.level = level(slices.Sorted(maps.Values(s.bytes)), j.opts.MaxBytes/2)
	return s
}

// level returns the most that everybody may have of total, given what they want in
// ascending order.
func level(want []int64, total int64) (most int64) {
	for i, w := range want {
		part := total / int64(len(want)-i)
		if w > part {
			return part
		}
		total -= w
		most = w
	}
	return most
}

// keeps reports whether the record is within its source's share, and goes on to the
// journal's end when its segment is removed.
func (s *shares) keeps(r Record) bool {
	return s.bytes[r.Source] <= s.level && !s.old(r)
}

func (s *shares) old(r Record) bool { return s.aged && s.now.Sub(r.Time) > shareTime }

// floods reports whether the record is lost for what its source has beyond its share, at
// the cost of others.
func (s *shares) floods(r Record) bool {
	bytes := s.bytes[r.Source]
	return bytes > s.level && bytes > s.flood && !s.old(r) && s.others()
}

// others reports whether somebody has no more than his share.
func (s *shares) others() bool {
	for _, bytes := range s.bytes {
		if bytes <= s.level {
			return true
		}
	}
	return false
}
