package journal

import (
	"encoding/json"
	"sync"
)

// Reasons for which the journal itself drops spans.
const (
	// ReasonDiskFull: the file system (or a quota, or a file size limit) took no more.
	ReasonDiskFull = "disk full"
	// ReasonWriteFailed: the segment could not be opened or written for another cause.
	ReasonWriteFailed = "journal write failed"
	// ReasonLocked: stopped processes hold the locks of several segments.
	ReasonLocked = "journal locked"
	// ReasonTooLarge: one span alone is larger than a record may be.
	ReasonTooLarge = "span too large"
	// ReasonFull: the cap removed a segment before the shipper had read it.
	ReasonFull = "journal full"
	// ReasonShare: the cap removed spans of a sandbox that had more than its share of
	// the journal, while others have not.
	ReasonShare = "sandbox over its share"
	// ReasonRetention: the cap removed spans of a journal that nobody ships. They
	// had been kept for as long as they could; it is no loss on the way.
	ReasonRetention = "retention"
)

// maxReasons bounds the set of reasons in one record; more count as reasonOther.
const maxReasons = 24

const reasonOther = "other"

// tally counts spans by reason.
type tally struct {
	mu sync.Mutex
	m  map[string]int
}

func (t *tally) add(reason string, spans int) {
	if spans <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil {
		t.m = make(map[string]int)
	}
	if _, known := t.m[reason]; !known && len(t.m) >= maxReasons {
		reason = reasonOther
	}
	t.m[reason] += spans
}

func (t *tally) addAll(m map[string]int) {
	for reason, spans := range m {
		t.add(reason, spans)
	}
}

// take returns the counts and resets them.
func (t *tally) take() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.m
	t.m = nil
	return m
}

// appendDrops appends the payload of a drops record.
func appendDrops(b []byte, m map[string]int) (_ []byte, spans int) {
	for _, n := range m {
		spans += n
	}
	j, err := json.Marshal(m)
	if err != nil { // cannot be: a map of strings and numbers
		panic(err)
	}
	return append(b, j...), spans
}
