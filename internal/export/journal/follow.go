package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
)

// patience is how long a follower waits for the lock of a segment that writers have
// left before it reads on in the next one.
const patience = time.Second

// maxBehind bounds the segments that a follower watches because a stopped process holds
// their lock.
const maxBehind = 16

// Follower reads a journal from a cursor on, record by record, while writers append. It
// is not safe for concurrent use.
type Follower struct {
	dir    string
	cursor Position // where to begin when no segment is open
	open   *tail
	behind []*tail
	stats  Stats
}

// tail is a segment that is read while it may grow.
type tail struct {
	scanner
	file  *os.File
	stuck time.Time // since when its lock is held by others; zero: it is free
}

// Follow reads the journal in dir from the cursor on. If the cursor's segment has been
// removed, it goes on with the oldest one left; if the whole journal has been replaced,
// with its beginning.
func Follow(dir string, c Cursor) *Follower {
	f := &Follower{dir: dir, cursor: c.Position}
	for _, p := range c.Behind {
		if t, err := f.openTail(p); err == nil {
			f.behind = append(f.behind, t)
		}
	}
	return f
}

// Next returns the next record, valid until the following call, or io.EOF when there is
// none for now. Other errors concern the journal's files; the call may be repeated.
func (f *Follower) Next() (Record, error) {
	for len(f.behind) > 0 {
		t := f.behind[0]
		r, done, err := t.read(true)
		if err == nil || !errors.Is(err, io.EOF) {
			return f.count(r, err)
		}
		if !done {
			break
		}
		f.closeTail(t)
		f.behind = f.behind[1:]
	}
	for {
		if f.open == nil {
			if err := f.openNext(); err != nil {
				return Record{}, err
			}
		}
		t := f.open
		r, _, err := t.read(false)
		if !errors.Is(err, io.EOF) {
			return f.count(r, err)
		}
		last, err := f.isLast(t.segment)
		if err != nil {
			return Record{}, err
		}
		if last {
			if _, links, err := stat(t.file); err != nil {
				return Record{}, err
			} else if links > 0 {
				return Record{}, io.EOF
			}
			// The whole journal has been removed. A new one may have any number.
			f.closeTail(t)
			f.open, f.cursor = nil, Position{}
			continue
		}
		r, done, err := t.read(true)
		if !errors.Is(err, io.EOF) {
			return f.count(r, err)
		}
		switch {
		case done:
			f.closeTail(t)
		case time.Since(t.stuck) > patience && len(f.behind) < maxBehind:
			f.behind = append(f.behind, t)
		default:
			return Record{}, io.EOF
		}
		f.open, f.cursor = nil, Position{Segment: t.segment + 1}
	}
}

// ReadRange calls fn with each record of the range. It reports false if the segment has
// been removed.
func ReadRange(dir string, r Range, fn func(Record)) (bool, error) {
	f := &Follower{dir: dir}
	t, err := f.openTail(r.Position)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer t.file.Close()
	for {
		record, _, err := t.read(false)
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return true, err
		}
		if record.Offset >= r.End {
			return true, nil
		}
		fn(record)
	}
}

// Has reports whether a segment still exists.
func Has(dir string, segment uint64) bool { return exists(dir, segment) }

// Cursor returns the position behind the last record that Next has returned.
func (f *Follower) Cursor() Cursor {
	c := Cursor{Position: f.cursor}
	if f.open != nil {
		c.Position = Position{Segment: f.open.segment, Offset: f.open.off}
	}
	for _, t := range f.behind {
		c.Behind = append(c.Behind, Position{Segment: t.segment, Offset: t.off})
	}
	return c
}

// Stats returns what has been read so far.
func (f *Follower) Stats() Stats {
	st := f.stats
	for _, t := range f.behind {
		st.CorruptBytes += t.corrupt
	}
	if f.open != nil {
		st.CorruptBytes += f.open.corrupt
	}
	return st
}

// Close closes the open segments.
func (f *Follower) Close() {
	for _, t := range f.behind {
		t.file.Close()
	}
	if f.open != nil {
		f.open.file.Close()
	}
	f.cursor, f.open, f.behind = f.Cursor().Position, nil, nil
}

func (f *Follower) count(r Record, err error) (Record, error) {
	if err == nil {
		f.stats.Records++
		f.stats.Bytes += int64(recordHeaderLen + len(r.Payload))
	}
	return r, err
}

// openNext opens the segment at the cursor, or the next that exists.
func (f *Follower) openNext() error {
	for range maxAttempts {
		numbers, err := listSegments(f.dir)
		if err != nil {
			return err
		}
		if len(numbers) == 0 {
			return io.EOF
		}
		i, _ := slices.BinarySearch(numbers, f.cursor.Segment)
		if i == len(numbers) {
			if f.cursor.Segment == numbers[i-1]+1 {
				return io.EOF // not begun yet
			}
			i = 0 // another journal in the same place
		}
		if numbers[i] != f.cursor.Segment {
			f.cursor = Position{Segment: numbers[i]}
		}
		t, err := f.openTail(f.cursor)
		if err == nil {
			f.open = t
			f.stats.Segments++
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return io.EOF
}

func (f *Follower) openTail(p Position) (*tail, error) {
	file, err := private.Open(segmentPath(f.dir, p.Segment), os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	t := &tail{file: file, scanner: scanner{r: file, segment: p.Segment, off: p.Offset}}
	if size, _, err := stat(file); err != nil || size < p.Offset {
		t.off = 0 // truncated or replaced: repeating records is better than losing them
	}
	return t, nil
}

func (f *Follower) closeTail(t *tail) {
	f.stats.CorruptBytes += t.corrupt
	t.file.Close()
}

func (f *Follower) isLast(number uint64) (bool, error) {
	if exists(f.dir, number+1) {
		return false, nil
	}
	numbers, err := listSegments(f.dir)
	return len(numbers) == 0 || numbers[len(numbers)-1] <= number, err
}

// read returns the next record, or io.EOF when there is none for now. With left set,
// writers have gone on to another segment; done says that no record can follow.
func (t *tail) read(left bool) (r Record, done bool, err error) {
	for {
		r, err = t.next()
		if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, errIncomplete) {
			return r, false, err
		}
		incomplete := errors.Is(err, errIncomplete)
		size, _, err := stat(t.file)
		if err != nil {
			return r, false, err
		}
		if size > t.size && !incomplete {
			t.grow(size, false)
			continue
		}
		if !incomplete && !left {
			return r, false, io.EOF
		}
		// While the lock is held, no append is under way and the size is final until
		// the next one.
		if err := host.Lock(t.file, unix.LOCK_SH, 0); err != nil {
			if !errors.Is(err, host.ErrLocked) {
				return r, false, err
			}
			if t.stuck.IsZero() {
				t.stuck = time.Now()
			}
			return r, false, io.EOF
		}
		size, _, err = stat(t.file)
		host.Unlock(t.file)
		if err != nil {
			return r, false, err
		}
		t.stuck = time.Time{}
		if !incomplete && size <= t.off {
			return r, left, io.EOF
		}
		t.grow(size, true)
	}
}

// grow makes the scanner see the segment's present size. It empties the buffer, whose
// end may be from an append that was taken back.
func (t *tail) grow(size int64, final bool) {
	t.size, t.final = size, final
	t.buf = t.buf[:0]
}
