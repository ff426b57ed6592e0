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
// cap. Their unread records move to the end for sources within their share; the spans
// of the others are counted as lost. Of records that have been read, those of sandboxes
// that are worth more move too, as far as there is room. A failed removal is tried again
// at the next rotation.
//
// Several processes may evict at once, each a different segment, whose lock it holds.
func (j *Journal) evict() {
	// One round removes one segment. The records it moves fill no more than one
	// segment.
	for range maxRounds {
		sealed, total := j.sealed()
		if total <= j.opts.MaxBytes {
			return
		}
		targets := j.shippedTo()
		if !j.remove(sealed[0], j.newShares(sealed, targets), targets, total) {
			return
		}
	}
}

// maxRounds bounds the segments that one append removes.
const maxRounds = 1024

// sealed returns the segments before the last one, and the bytes that all segments need
// with the last one full. If there are shares, that includes one more segment, into
// which records are moved.
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

// remove removes a segment. It must be the first one: for writers, a segment without a
// next number is the last.
func (j *Journal) remove(number uint64, s shares, targets []Target, total int64) bool {
	path := segmentPath(j.dir, number)
	f, err := private.Open(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true // somebody else has removed and counted it
	}
	if err == nil {
		defer f.Close()
		if host.Lock(f, unix.LOCK_EX, j.opts.LockWait) != nil {
			// Another process is removing it. If that process has been stopped, keep
			// the cap without it.
			if total <= j.opts.MaxBytes+2*j.opts.SegmentBytes {
				return false
			}
			s.none()
		} else if _, links, err := stat(f); err == nil && links == 0 {
			return true
		}
	}
	lost := make(map[loss]int)
	for _, t := range targets {
		lost[loss{t.Name, losses.JournalFull}] = t.aside(number) // they are lost with their segment
	}
	carried := make(map[string]int)
	var st Stats
	err = scanSegment(j.dir, number, &st, func(r Record) error {
		switch r.Kind {
		case KindTraces, KindPosted:
			need, taken := without(targets, r)
			if r.Kept || len(need) == 0 && len(targets) > 0 {
				if s.keepsShipped(r.Source) {
					_ = j.move(r, KindKept, nil) // its spans are not lost: the backend has them
				}
				return nil
			}
			reason := j.reasonLost(r, &s)
			if s.keeps(r) {
				err := j.move(r, r.Kind, taken)
				if err == nil {
					return nil
				}
				reason = reasonOf(err)
			}
			if len(targets) == 0 {
				need = make([]Target, 1)
			}
			for _, t := range need {
				lost[loss{t.Name, reason}] += r.Spans
			}
		case KindWorth:
			if s.keepsMark(r.Source) {
				_ = j.move(r, KindWorth, nil) // or its spans are worth no more than others'
			}
		case KindDrops, KindCarried:
			drops, err := r.Drops()
			if err != nil {
				return nil // written by another version
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
	for l, spans := range lost {
		j.LoseTo(l.target, l.reason, spans)
	}
	return true
}

// reasonLost returns why a record is lost with its segment.
func (j *Journal) reasonLost(r Record, s *shares) losses.Reason {
	switch {
	case s.floods(r):
		return losses.OverShare
	case j.opts.Shipped:
		return losses.JournalFull
	}
	return losses.Retention
}

// loss is why, and to which target, spans are lost.
type loss struct {
	target string
	reason losses.Reason
}

// move appends a record again, as one of the given kind, for all targets but those that
// have it.
func (j *Journal) move(r Record, as Kind, taken []string) error {
	b := j.room(maxTaken + len(r.Payload))
	if len(taken) > 0 {
		b, as = appendTaken(b, taken), as|moved
	}
	return j.appendRecord(entry{kind: as, source: r.Source, spans: r.Spans, time: r.Time}, append(b, r.Payload...))
}
