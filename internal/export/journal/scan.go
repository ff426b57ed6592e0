package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/shimtrace/shimtrace/internal/private"
)

// Stats says what a scan has seen.
type Stats struct {
	Segments int
	Records  int
	// Bytes is the size of the segments.
	Bytes int64
	// CorruptBytes were passed over because they belong to no valid record.
	CorruptBytes int64
}

// Scan calls fn for each record of the journal in dir, oldest first: segment by
// segment, in the order of appends. Writers may append and remove segments meanwhile;
// Scan sees a segment as it is when Scan reaches it. It needs memory for the longest
// record. It ends at fn's first error and returns it. A directory that does not exist
// is an empty journal.
func Scan(dir string, fn func(Record) error) (Stats, error) {
	var st Stats
	numbers, err := listSegments(dir)
	if err != nil {
		return st, err
	}
	for _, n := range numbers {
		err := scanSegment(dir, n, &st, func(r Record) error {
			if r.Kind == KindWorth {
				return nil // for writers alone
			}
			return fn(r)
		})
		if err != nil {
			return st, err
		}
	}
	return st, nil
}

// scanSegment scans one segment. A segment that is gone or is no regular file has no
// records.
func scanSegment(dir string, number uint64, st *Stats, fn func(Record) error) error {
	f, err := private.Open(segmentPath(dir, number), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, private.ErrNotRegular) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	s := scanner{r: f, segment: number, size: info.Size(), final: true}
	st.Segments++
	st.Bytes += s.size
	for {
		r, err := s.next()
		if err == nil {
			st.Records++
			err = fn(r)
		}
		if err != nil {
			st.CorruptBytes += s.corrupt
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// errIncomplete says that the segment ends within a record: its writer is still
// writing, or died.
var errIncomplete = errors.New("journal: the segment ends within a record")

const (
	// readAhead is the least that a scanner reads at once, in bytes.
	readAhead = 64 << 10
	// maxGap is how far a scanner looks for the next marker, in bytes. The rest counts
	// as damaged: a sparse file may have holes of any size.
	maxGap = 64 << 20
	// maxWasted bounds the bytes checksummed in vain, per byte of the segment;
	// wastedAtLeast is allowed in any case. A hostile file may have a marker at every
	// offset.
	maxWasted, wastedAtLeast = 8, 16 << 20
)

// scanner reads the records of one segment up to size. With final set, no writer is at
// work below size, and anything that is not a whole record is damage.
type scanner struct {
	r       io.ReaderAt
	segment uint64
	off     int64 // where the next record is looked for
	size    int64
	final   bool
	corrupt int64 // bytes passed over
	wasted  int64 // bytes whose checksum was wrong

	marker marker
	known  bool  // marker is set
	begun  int64 // when the segment was, in Unix nanoseconds; 0: not known
	buf    []byte
	start  int64 // offset of buf[0]
}

// next returns the next record, io.EOF at the end, or errIncomplete.
func (s *scanner) next() (Record, error) {
	if err := s.begin(); err != nil {
		return Record{}, err
	}
	for {
		r, err := s.record()
		switch {
		case err == nil, errors.Is(err, io.EOF):
			return r, err
		case !errors.Is(err, errIncomplete) && !errors.Is(err, errDamaged):
			return r, err
		case !s.final:
			return r, errIncomplete
		}
		if err := s.resync(); err != nil {
			return r, err
		}
	}
}

// begin learns the segment's marker and skips its header.
func (s *scanner) begin() error {
	if s.known {
		return nil
	}
	if s.size == 0 {
		return io.EOF
	}
	head, err := s.view(0, segmentHeaderLen+recordHeaderLen)
	if err != nil {
		return err
	}
	if m, ok := parseSegmentHeader(head); ok {
		s.marker, s.known, s.begun = m, true, created(head)
	} else if len(head) == segmentHeaderLen+recordHeaderLen {
		// The first record's header repeats the marker; its checksum says whether to
		// trust it.
		copy(s.marker[:], head[segmentHeaderLen:])
		if err := s.check(segmentHeaderLen); err != nil {
			if !s.final {
				return errIncomplete
			}
			s.skipTo(s.size)
			return io.EOF
		}
		s.known = true
		s.corrupt += segmentHeaderLen
	} else if !s.final {
		return errIncomplete
	} else {
		s.skipTo(s.size)
		return io.EOF
	}
	s.off = max(s.off, segmentHeaderLen)
	return nil
}

var errDamaged = errors.New("journal: damaged record")

// record reads the record at s.off and moves behind it.
func (s *scanner) record() (Record, error) {
	if s.off >= s.size {
		return Record{}, io.EOF
	}
	if err := s.check(s.off); err != nil {
		return Record{}, err
	}
	b, err := s.view(s.off, recordHeaderLen)
	if err != nil {
		return Record{}, err
	}
	h := parseRecordHeader(b)
	b, err = s.view(s.off, recordHeaderLen+int(h.length))
	if err != nil {
		return Record{}, err
	}
	r := Record{
		Time:    time.Unix(0, h.time),
		Kind:    h.kind,
		Source:  h.source,
		Spans:   int(h.spans),
		Payload: b[recordHeaderLen:],
		Segment: s.segment,
		Offset:  s.off,
		Moved:   h.time < s.begun,
	}
	if r.Kind == KindKept {
		r.Kind, r.Kept = KindTraces, true
	}
	s.off += int64(len(b))
	if h.moved {
		var ok bool
		if r.Taken, r.names, ok = parseTaken(r.Payload); !ok {
			r.Kind |= moved // of another version
		}
		r.Payload = r.Payload[r.names:]
	}
	return r, nil
}

// check returns nil if a whole, valid record begins at off.
func (s *scanner) check(off int64) error {
	b, err := s.view(off, recordHeaderLen)
	if err != nil {
		return err
	}
	if n := min(len(b), len(s.marker)); !bytes.Equal(b[:n], s.marker[:n]) {
		return errDamaged
	}
	if len(b) < recordHeaderLen {
		return errIncomplete
	}
	h := parseRecordHeader(b)
	if h.length > maxPayload {
		return errDamaged
	}
	want := recordHeaderLen + int(h.length)
	if b, err = s.view(off, want); err != nil {
		return err
	}
	if len(b) < want {
		return errIncomplete
	}
	if recordChecksum(b) != h.crc {
		s.wasted += int64(want)
		return errDamaged
	}
	return nil
}

// resync moves to the next marker behind s.off, or to the end.
func (s *scanner) resync() error {
	if s.wasted > max(maxWasted*s.size, wastedAtLeast) {
		s.skipTo(s.size)
		return nil
	}
	for off := s.off + 1; off < min(s.size, s.off+maxGap); {
		b := s.buffered(off)
		if len(b) < recordHeaderLen {
			var err error
			if b, err = s.view(off, readAhead); err != nil {
				return err
			}
		}
		if i := bytes.Index(b, s.marker[:]); i >= 0 {
			s.skipTo(off + int64(i))
			return nil
		}
		if len(b) < len(s.marker) || off+int64(len(b)) >= s.size {
			break
		}
		off += int64(len(b) - len(s.marker) + 1)
	}
	s.skipTo(s.size)
	return nil
}

func (s *scanner) skipTo(off int64) {
	if off > s.off {
		s.corrupt += off - s.off
		s.off = off
	}
}

// buffered returns what has been read from off on.
func (s *scanner) buffered(off int64) []byte {
	if off < s.start || off > s.start+int64(len(s.buf)) {
		return nil
	}
	return s.buf[off-s.start:]
}

// view returns the n bytes at off, fewer only at the end of the segment. They are
// valid until the next call.
func (s *scanner) view(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), max(s.size-off, 0)))
	if off < s.start || off+int64(n) > s.start+int64(len(s.buf)) {
		want := int(min(int64(max(n, readAhead)), s.size-off))
		if cap(s.buf) < want {
			s.buf = make([]byte, want)
		}
		s.buf, s.start = s.buf[:want], off
		got, err := s.r.ReadAt(s.buf, off)
		s.buf = s.buf[:got]
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("journal: segment %d: %w", s.segment, err)
		}
		if got < n {
			// Truncated since its size was read: a failed append took back part of a
			// record.
			s.size = off + int64(got)
			n = got
		}
	}
	i := off - s.start
	return s.buf[i : i+int64(n)], nil
}
