package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/private"
)

// maxElsewhere bounds the sealed or removed segments that one append meets: on a busy
// machine other writers may be that much faster.
const maxElsewhere = 64

// maxAttempts bounds the segments that one append tries: meanwhile others may rotate,
// remove or lock each of them.
const maxAttempts = 8

// errElsewhere says that the open segment is not the one to append to.
var errElsewhere = errors.New("journal: the segment is sealed or removed")

// entry is the part of a record's header that its writer sets.
type entry struct {
	kind   Kind
	source Source
	spans  int
	time   time.Time // zero: when it is written
}

// append writes one record and keeps the journal within its cap. The payload is in b,
// behind the room for the headers.
func (j *Journal) append(kind Kind, source Source, spans int, b []byte) (err error) {
	if kind.Traces() {
		defer func() {
			if err == nil {
				j.written.Add(uint64(spans))
			}
		}()
	}
	e := entry{kind: kind, source: source, spans: spans}
	err = j.appendRecord(e, b)
	if !j.rotated {
		return err
	}
	j.rotated = false
	if err != nil {
		j.buf = nil // b is in it
	}
	j.evict()
	if err != nil && reasonOf(err) == losses.DiskFull {
		return j.appendRecord(e, b) // there may be room now
	}
	return err
}

// appendRecord writes one record to the last segment, whose lock it holds during the
// write.
func (j *Journal) appendRecord(e entry, b []byte) error {
	if j.file == nil {
		if err := j.openLast(); err != nil {
			return err
		}
	}
	for locked, elsewhere := 0, 0; locked < maxAttempts && elsewhere < maxElsewhere; {
		err := host.Lock(j.file, unix.LOCK_EX, j.opts.LockWait)
		switch {
		case errors.Is(err, host.ErrLocked):
			locked++
			// A stopped process holds it. All writers go on to the next segment.
			if err := j.openNext(); err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("journal: %w", err)
		}
		err = j.appendLocked(e, b)
		host.Unlock(j.file)
		if !errors.Is(err, errElsewhere) {
			return err
		}
		elsewhere++
		if err := j.openLast(); err != nil {
			return err
		}
	}
	return fmt.Errorf("journal: %s: no segment could be locked: %w", j.dir, host.ErrLocked)
}

// appendLocked writes the record to the open segment, whose lock is held.
func (j *Journal) appendLocked(e entry, b []byte) error {
	size, links, err := stat(j.file)
	if err != nil {
		return err
	}
	if links == 0 || exists(j.dir, j.number+1) {
		return errElsewhere
	}
	record := b[segmentHeaderLen:]
	if size > segmentHeaderLen && size+int64(len(record)) > j.opts.SegmentBytes {
		f, err := openSegment(j.dir, j.number+1, os.O_CREATE)
		if err != nil {
			return err
		}
		f.Close()
		j.rotated = true
		return errElsewhere
	}
	now := time.Now()
	if e.time.IsZero() {
		e.time = now
	}
	var m marker
	out := record
	if size < segmentHeaderLen {
		// The first append writes the header, so that creating a segment is one step. A
		// full disk can leave a partial header.
		if size > 0 {
			if err := j.file.Truncate(0); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
			size = 0
		}
		m = newMarker()
		appendSegmentHeader(b[:0], m, now)
		out = b
	} else if m, err = readMarker(j.file); err != nil {
		return err
	}
	putRecordHeader(record, m, e)
	if n, err := j.file.Write(out); err != nil {
		if n > 0 {
			// Best effort: readers skip what stays.
			_ = j.file.Truncate(size)
		}
		return fmt.Errorf("journal: append: %w", err)
	}
	// If the segment was removed while this process was stopped, nobody has counted
	// this record.
	if _, links, err := stat(j.file); err == nil && links == 0 {
		return errElsewhere
	}
	return nil
}

// openLast opens the segment with the highest number, creating the first if there is
// none.
func (j *Journal) openLast() error {
	if err := j.Check(); err != nil {
		return err
	}
	var locked error
	for range maxAttempts {
		numbers, err := listSegments(j.dir)
		if err != nil {
			return err
		}
		if len(numbers) == 0 {
			// The holder of the lock makes the first one, as soon as the disk lets it.
			if locked = j.createFirst(); locked != nil && !errors.Is(locked, host.ErrLocked) {
				return locked
			}
			continue
		}
		number := numbers[len(numbers)-1]
		f, err := openSegment(j.dir, number, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		j.use(f, number)
		return nil
	}
	if locked != nil {
		return locked
	}
	return fmt.Errorf("journal: %s: its segments are removed as soon as they are made", j.dir)
}

// createFirst creates the first segment under the directory's lock. The rule that N+1
// seals N needs numbers without gaps.
func (j *Journal) createFirst() error {
	d, err := os.Open(j.dir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer d.Close()
	if err := host.Lock(d, unix.LOCK_EX, j.opts.LockWait); err != nil {
		return fmt.Errorf("journal: %s: %w", j.dir, err)
	}
	if numbers, err := listSegments(j.dir); err != nil || len(numbers) > 0 {
		return err
	}
	f, err := openSegment(j.dir, uint64(time.Now().UnixMilli()), os.O_CREATE)
	if err != nil {
		return err
	}
	return f.Close()
}

// openNext opens the segment after the open one, or a later one if there is one.
func (j *Journal) openNext() error {
	if !exists(j.dir, j.number+1) {
		f, err := openSegment(j.dir, j.number+1, os.O_CREATE)
		if err != nil {
			return err
		}
		f.Close()
	}
	return j.openLast()
}

func (j *Journal) use(f *os.File, number uint64) {
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.number = f, number
}

func openSegment(dir string, number uint64, flag int) (*os.File, error) {
	f, err := private.Open(segmentPath(dir, number), os.O_RDWR|os.O_APPEND|flag, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return f, nil
}

func readMarker(f *os.File) (m marker, err error) {
	var head [segmentHeaderLen + len(m)]byte
	n, err := f.ReadAt(head[:], 0)
	if n < segmentHeaderLen {
		return m, fmt.Errorf("journal: read %s: %w", f.Name(), err)
	}
	m, ok := parseSegmentHeader(head[:n])
	if !ok && n == len(head) {
		// Damaged: readers take the first record's marker.
		copy(m[:], head[segmentHeaderLen:])
	}
	return m, nil
}

func stat(f *os.File) (size int64, links uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("journal: stat %s: %w", f.Name(), err)
	}
	return st.Size, uint64(st.Nlink), nil
}

func reasonOf(err error) losses.Reason {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		return losses.DiskFull
	case errors.Is(err, host.ErrLocked):
		return losses.JournalLocked
	default:
		return losses.WriteFailed
	}
}
