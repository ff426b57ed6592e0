package waterfall

import "hash/maphash"

// maxSeen is the number of spans recognised in each of the two generations of seen.
const maxSeen = 3 << 18

// seen recognises repeated spans, which delivery at least once produces. It takes at
// most 16 MiB: when it is full, it forgets the older half. Ids are hashed with a seed
// that guests do not know.
type seen struct {
	seed     maphash.Seed
	now, old hashes
}

func newSeen() *seen { return &seen{seed: maphash.MakeSeed()} }

// add reports whether the span is new.
func (s *seen) add(key spanKey) bool {
	h := maphash.Comparable(s.seed, key) | 1 // 0 is an empty slot
	if s.old.has(h) || !s.now.add(h) {
		return false
	}
	if s.now.n >= maxSeen {
		s.old, s.now = s.now, hashes{}
	}
	return true
}

// hashes is a set of nonzero numbers.
type hashes struct {
	slots []uint64 // their number is a power of two, at most three quarters used
	n     int
}

func (t *hashes) slot(h uint64) int {
	mask := len(t.slots) - 1
	i := int(h>>1) & mask
	for t.slots[i] != 0 && t.slots[i] != h {
		i = (i + 1) & mask
	}
	return i
}

func (t *hashes) has(h uint64) bool { return t.n > 0 && t.slots[t.slot(h)] == h }

// add reports whether h is new.
func (t *hashes) add(h uint64) bool {
	if 4*(t.n+1) > 3*len(t.slots) {
		old := t.slots
		t.slots = make([]uint64, max(1024, 2*len(old)))
		for _, h := range old {
			if h != 0 {
				t.slots[t.slot(h)] = h
			}
		}
	}
	i := t.slot(h)
	if t.slots[i] == h {
		return false
	}
	t.slots[i], t.n = h, t.n+1
	return true
}
