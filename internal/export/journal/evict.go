package journal

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/private"
)

// evict removes the oldest segments until the rest and one full segment are within the
// cap. What they held of those who have no more than their share goes on to the end;
// what else nobody has read is counted. It is best effort: a failed removal is tried
// again at the next rotation.
//
// Several processes may be at it, each at another segment: they hold its lock.
func (j *Journal) evict() {
	// One round removes one segment. What is moved fills no more than one for each.
	for range maxRounds {
		sealed, total := j.sealed()
		if total <= j.opts.MaxBytes {
			return
		}
		var shipped Cursor
		if j.opts.Shipped {
			shipped, _ = ReadCursor(j.dir)
		}
		if !j.remove(sealed[0], j.newShares(sealed, shipped), shipped, total) {
			return
		}
	}
}

// maxRounds bounds the segments that one append removes.
const maxRounds = 1024

// sealed returns the segments before the last one, and how much room all of them need
// together, with the last one filled, and another one if there are shares: into that
// goes what is moved.
func (j *Journal) sealed() (sealed []uint64, total int64) {
	numbers, err := listSegments(j.dir)
	if err != nil || len(numbers) < 2 {
		return nil, 0
	}
	sealed, total = numbers[:len(numbers)-1], j.opts.SegmentBytes
	if j.opts.MaxBytes >= sharedSegments*j.opts.SegmentBytes {
		total += j.opts.SegmentBytes
	}
	for _, n := range sealed {
		if info, err := os.Stat(segmentPath(j.dir, n)); err == nil {
			total += info.Size()
		}
	}
	return sealed, total
}

// remove removes a segment. Always the first one: a writer relies on it that no segment
// below an existing one is the last.
func (j *Journal) remove(number uint64, s shares, shipped Cursor, total int64) bool {
	path := segmentPath(j.dir, number)
	f, err := private.Open(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true // somebody else has removed and counted it
	}
	if err == nil {
		defer f.Close()
		if host.Lock(f, unix.LOCK_EX, j.opts.LockWait) != nil {
			// Another process is at it. If that has been stopped, the cap is kept
			// without it.
			if total <= j.opts.MaxBytes+2*j.opts.SegmentBytes {
				return false
			}
			s.level = -1
		} else if _, links, err := stat(f); err == nil && links == 0 {
			return true
		}
	}
	// What has been set aside goes with its segment.
	lost := map[losses.Reason]int{losses.JournalFull: shipped.aside(number)}
	carried := make(map[string]int)
	var st Stats
	err = scanSegment(j.dir, number, 0, &st, func(r Record) error {
		switch r.Kind {
		case KindTraces:
			if shipped.passed(r) {
				return nil
			}
			if s.keeps(r) {
				if err := j.move(r); err != nil {
					lost[reasonOf(err)] += r.Spans
				}
				return nil
			}
			lost[j.reasonLost(r, &s)] += r.Spans
		case KindDrops, KindCarried:
			drops, err := r.Drops()
			if err != nil {
				return nil // of a version that writes them otherwise
			}
			for reason, spans := range drops {
				carried[reason] += spans
			}
		}
		return nil
	})
	if err != nil || os.Remove(path) != nil {
		return false // or somebody else has removed and counted it
	}
	delete(j.usages, number)
	j.carried.addAll(carried)
	for reason, spans := range lost {
		j.lose(reason, spans)
	}
	return true
}

// reasonLost is why a record goes with its segment.
func (j *Journal) reasonLost(r Record, s *shares) losses.Reason {
	switch {
	case s.floods(r):
		return losses.OverShare
	case j.opts.Shipped:
		return losses.JournalFull
	}
	return losses.Retention
}

// move appends a record again.
func (j *Journal) move(r Record) error {
	b := append(j.room(len(r.Payload)), r.Payload...)
	return j.appendRecord(entry{kind: r.Kind, source: r.Source, spans: r.Spans, time: r.Time}, b)
}
