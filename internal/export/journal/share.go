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
	// shareTime is how long a sandbox's share protects its records in a journal that
	// nobody ships. Older records are lost with their segment, so that no share
	// outlives its use.
	shareTime = time.Hour
	// sharedSegments is the smallest cap, in segments, at which there are shares.
	sharedSegments = 8
	// A source with more than one floodPart-th of the cap loses spans for flooding
	// ([losses.OverShare]), not by age.
	floodPart = 8
)

// usage counts a segment's bytes by source.
type usage map[Source]int64

// used returns the usage of a sealed segment, which no longer changes.
func (j *Journal) used(segment uint64) usage {
	if u, ok := j.usages[segment]; ok {
		return u
	}
	u, err := readUsage(j.dir, segment)
	if err != nil {
		return nil // read again the next time
	}
	if j.usages == nil {
		j.usages = make(map[uint64]usage)
	}
	j.usages[segment] = u
	return u
}

// readUsage reads only the headers. Readers check the payloads.
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
	var start, end int64 // the range of the segment in buf
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
			break // damaged: the rest counts against no source
		}
		n := int64(recordHeaderLen) + int64(h.length)
		if h.kind.Traces() {
			u[h.source] += n
		}
		off += n
	}
	return u, nil
}

// shares says which sources keep their records when the journal is full.
type shares struct {
	now   time.Time
	aged  bool // old records are not kept
	bytes usage
	level int64 // the most bytes that a source may keep
	flood int64 // the bytes above which a source counts as flooding
}

// newShares divides half of the cap among the sources in the sealed segments that are
// not shipped yet. A source with less than an equal part keeps all of its bytes, and
// the others divide the rest of its part (max-min fairness). The other half of the cap
// is for new records, so that no more is moved than is removed.
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

// level returns the most bytes of total that each source may have, given their wants in
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

// keeps reports whether the record is within its source's share, and so moves to the
// journal's end when its segment is removed.
func (s *shares) keeps(r Record) bool {
	return s.bytes[r.Source] <= s.level && !s.old(r)
}

func (s *shares) old(r Record) bool { return s.aged && s.now.Sub(r.Time) > shareTime }

// floods reports whether the record is lost because its source exceeds its share at the
// cost of others.
func (s *shares) floods(r Record) bool {
	bytes := s.bytes[r.Source]
	return bytes > s.level && bytes > s.flood && !s.old(r) && s.others()
}

// others reports whether some source is within its share.
func (s *shares) others() bool {
	for _, bytes := range s.bytes {
		if bytes <= s.level {
			return true
		}
	}
	return false
}
