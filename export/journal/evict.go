package journal

import (
	"os"
)

// evict removes the oldest segments until the rest and one full segment are
// within the cap. What they held and nobody has read is counted. It is best
// effort: a failed removal is tried again at the next rotation.
func (j *Journal) evict() {
	numbers, err := listSegments(j.dir)
	if err != nil || len(numbers) == 0 {
		return
	}
	sealed := numbers[:len(numbers)-1]
	sizes := make([]int64, len(sealed))
	total := j.opts.SegmentBytes
	for i, n := range sealed {
		if info, err := os.Stat(segmentPath(j.dir, n)); err == nil {
			sizes[i] = info.Size()
			total += sizes[i]
		}
	}
	var shipped Cursor
	if j.opts.Shipped && total > j.opts.MaxBytes {
		shipped, _ = ReadCursor(j.dir)
	}
	// Always in ascending order: a writer relies on it that no segment below an
	// existing one is the last.
	for i, n := range sealed {
		if total <= j.opts.MaxBytes {
			return
		}
		lost := shipped.aside(n)
		carried := make(map[string]int)
		var st Stats
		err := scanSegment(j.dir, n, 0, &st, func(r Record) error {
			switch r.Kind {
			case KindTraces:
				if !shipped.passed(r) {
					lost += r.Spans
				}
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
		if err != nil || os.Remove(segmentPath(j.dir, n)) != nil {
			return // or somebody else has removed and counted it
		}
		total -= sizes[i]
		j.carried.addAll(carried)
		if j.opts.Shipped {
			j.drops.add(ReasonFull, lost)
		} else {
			j.drops.add(ReasonRetention, lost)
		}
	}
}
