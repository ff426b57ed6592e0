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

// usage counts bytes by source.
type usage map[Source]int64

// contents is what a segment has, by source: the bytes of its records, the bytes of those that
// shippers were done with when they were appended, and which sources are worth more.
type contents struct {
	bytes, kept usage
	worth       map[Source]bool
}

// used returns the contents of a sealed segment, which no longer changes.
func (j *Journal) used(segment uint64) contents {
	if u, ok := j.usages[segment]; ok {
		return u
	}
	u, err := readUsage(j.dir, segment)
	if err != nil {
		return contents{} // read again the next time
	}
	if j.usages == nil {
		j.usages = make(map[uint64]contents)
	}
	j.usages[segment] = u
	return u
}

// readUsage reads only the headers. Readers check the payloads.
func readUsage(dir string, segment uint64) (contents, error) {
	u := contents{make(usage), make(usage), make(map[Source]bool)}
	f, err := private.Open(segmentPath(dir, segment), os.O_RDONLY, 0)
	if err != nil {
		return contents{}, err
	}
	defer f.Close()
	size, _, err := stat(f)
	if err != nil || size <= segmentHeaderLen {
		return u, err
	}
	m, err := readMarker(f)
	if err != nil {
		return contents{}, err
	}
	buf := make([]byte, 4<<10)
	var start, end int64 // the range of the segment in buf
	for off := int64(segmentHeaderLen); off+recordHeaderLen <= size; {
		if off+recordHeaderLen > end {
			n, err := f.ReadAt(buf, off)
			if n < recordHeaderLen {
				return contents{}, err
			}
			start, end = off, off+int64(n)
		}
		b := buf[off-start:]
		h := parseRecordHeader(b)
		if !bytes.Equal(b[:len(m)], m[:]) {
			break // damaged: the rest counts against no source
		}
		n := int64(recordHeaderLen) + int64(h.length)
		switch {
		case h.kind.Traces():
			u.bytes[h.source] += n
		case h.kind == KindKept:
			u.kept[h.source] += n
		case h.kind == KindWorth:
			u.worth[h.source] = true
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
	// worth are the sources that are worth more, and high is the most that each of them
	// keeps: they are served first, and don't age.
	worth map[Source]bool
	high  int64
	flood int64 // the bytes above which a source counts as flooding
	// shipped are the bytes, shipped or kept out, of the sources that keep them.
	shipped usage
}

// newShares divides half of the cap among the sources in the sealed segments that some
// target needs. A source with less than an equal part keeps all of its bytes, and
// the others divide the rest of its part (max-min fairness). The other half of the cap
// is for new records, so that no more is moved than is removed.
//
// Those that are worth more divide the first half of that among themselves, so that they
// outlast any number of others; none keeps more than a flood may have. Those of their records
// that have been shipped stay where nothing unshipped needs the room.
func (j *Journal) newShares(sealed []uint64, targets []Target) shares {
	s := shares{now: time.Now(), aged: !j.opts.Shipped, bytes: make(usage), shipped: make(usage), worth: make(map[Source]bool), flood: j.opts.MaxBytes / floodPart}
	maps.DeleteFunc(j.usages, func(n uint64, _ contents) bool { return n < sealed[0] })
	if j.opts.MaxBytes < sharedSegments*j.opts.SegmentBytes {
		s.none()
		return s
	}
	for _, n := range sealed {
		segment, of := j.used(n), s.bytes
		if len(targets) > 0 && !slices.ContainsFunc(targets, func(t Target) bool { return n >= t.Segment }) {
			of = s.shipped
		}
		for source, bytes := range segment.bytes {
			of[source] += bytes
		}
		for source, bytes := range segment.kept {
			s.shipped[source] += bytes
		}
		maps.Copy(s.worth, segment.worth)
	}
	maps.DeleteFunc(s.shipped, func(source Source, _ int64) bool { return !s.worth[source] })
	s.spare(j.opts.MaxBytes/2, s.divide(j.opts.MaxBytes/2))
	return s
}

// spare leaves in shipped the sources whose bytes fit into the rest of total, and into half of
// total.
func (s *shares) spare(total, rest int64) {
	want := slices.Sorted(maps.Values(s.shipped))
	most := min(level(want, min(rest, total/2)), s.flood)
	maps.DeleteFunc(s.shipped, func(_ Source, bytes int64) bool { return bytes > most })
}

// divide sets the levels, so that the sources keep at most total bytes together, and
// returns how many are left. A source that is worth more and has too much competes with
// the others.
func (s *shares) divide(total int64) (rest int64) {
	var worth, others []int64
	for source := range s.worth {
		worth = append(worth, s.bytes[source])
	}
	slices.Sort(worth)
	s.high = min(level(worth, total/2), s.flood)
	maps.DeleteFunc(s.worth, func(source Source, _ bool) bool { return s.bytes[source] > s.high })
	for source, bytes := range s.bytes {
		if s.worth[source] {
			total -= bytes
		} else {
			others = append(others, bytes)
		}
	}
	slices.Sort(others)
	s.level = level(others, total)
	for _, bytes := range others {
		if bytes <= s.level {
			total -= bytes
		}
	}
	return total
}

// none lets no source keep anything.
func (s *shares) none() { s.level, s.high, s.shipped = -1, -1, nil }

// most returns the most bytes that a source may keep.
func (s *shares) most(of Source) int64 {
	if s.worth[of] {
		return s.high
	}
	return s.level
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
	return s.bytes[r.Source] <= s.most(r.Source) && !s.old(r)
}

func (s *shares) old(r Record) bool {
	return s.aged && !s.worth[r.Source] && s.now.Sub(r.Time) > shareTime
}

// keepsShipped reports whether the records of a source that have been shipped move on.
func (s *shares) keepsShipped(of Source) bool { return s.shipped[of] > 0 }

// keepsMark reports whether a source's record of KindWorth moves on with the source's spans.
func (s *shares) keepsMark(of Source) bool {
	return s.worth[of] && s.bytes[of] > 0 || s.keepsShipped(of)
}

// floods reports whether the record is lost because its source exceeds its share at the
// cost of others.
func (s *shares) floods(r Record) bool {
	bytes := s.bytes[r.Source]
	return bytes > s.most(r.Source) && bytes > s.flood && !s.old(r) && s.others()
}

// others reports whether some source is within its share.
func (s *shares) others() bool {
	for source, bytes := range s.bytes {
		if bytes <= s.most(source) {
			return true
		}
	}
	return false
}
