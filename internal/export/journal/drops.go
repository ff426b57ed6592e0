package journal

import (
	"encoding/json"
	"sync"
)

// maxReasons bounds the reasons carried on from other writers; further ones count as
// reasonOther.
const maxReasons = 64

const reasonOther = "other"

// tally counts spans by reason. Other versions may have other reasons than package
// losses.
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
	if err != nil { // impossible: a map of strings and numbers
		panic(err)
	}
	return append(b, j...), spans
}
