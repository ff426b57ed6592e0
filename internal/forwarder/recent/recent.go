// Package recent has bounded maps, which forget the keys that were added first.
//
// They are not safe for concurrent use. Packages calls and collate use them for what guests may
// send in any amount, package route for the processes that have posted.
package recent

import "iter"

// Map holds the entries added last, up to its limit.
type Map[K comparable, V any] struct {
	limit  int
	at     map[K]uint32             // the index of the entry
	blocks []*[perBlock]entry[K, V] // of entries, which are never moved
	n      int                      // entries
	oldest int                      // the index of the next one to be replaced, once the map is full
}

// perBlock is how many entries have their memory in one piece. A slice that grows leaves as
// much again behind, for as long as its process has too little garbage to collect it.
const perBlock = 32

type entry[K comparable, V any] struct {
	key K
	val V
}

// New returns a Map of at most limit entries.
func New[K comparable, V any](limit int) Map[K, V] {
	return Map[K, V]{limit: limit, at: make(map[K]uint32)}
}

// Get returns the value of k, and whether there is one.
func (m *Map[K, V]) Get(k K) (v V, ok bool) {
	i, ok := m.at[k]
	if ok {
		v = m.entry(i).val
	}
	return v, ok
}

// Has reports whether k has a value.
func (m *Map[K, V]) Has(k K) bool {
	_, ok := m.at[k]
	return ok
}

// All returns all keys and values, in no order.
func (m *Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := range uint32(m.n) {
			if e := m.entry(i); !yield(e.key, e.val) {
				return
			}
		}
	}
}

// Put sets the value of k, and evicts the oldest key if k is new and the map full.
func (m *Map[K, V]) Put(k K, v V) {
	if i, ok := m.at[k]; ok {
		m.entry(i).val = v
		return
	}
	i := uint32(m.n)
	if m.n < m.limit {
		if m.n%perBlock == 0 {
			m.blocks = append(m.blocks, new([perBlock]entry[K, V]))
		}
		m.n++
	} else {
		i = uint32(m.oldest)
		delete(m.at, m.entry(i).key)
		m.oldest = (m.oldest + 1) % m.limit
	}
	m.at[k] = i
	*m.entry(i) = entry[K, V]{k, v}
}

func (m *Map[K, V]) entry(i uint32) *entry[K, V] { return &m.blocks[i/perBlock][i%perBlock] }
