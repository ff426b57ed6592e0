// Package recent has bounded maps, which forget the keys that were added first.
//
// They are not safe for concurrent use. Packages calls and collate use them for what guests may
// send in any amount, package route for the processes that have posted.
package recent

import (
	"iter"
	"slices"
)

// Map holds the entries added last, up to its limit.
type Map[K comparable, V any] struct {
	limit   int
	at      map[K]int32 // the index in entries
	entries []entry[K, V]
	oldest  int // in entries, a ring once it is full
}

type entry[K comparable, V any] struct {
	key K
	val V
}

// New returns a Map of at most limit entries.
func New[K comparable, V any](limit int) Map[K, V] {
	return Map[K, V]{limit: limit, at: make(map[K]int32)}
}

// Get returns the value of k, and whether there is one.
func (m *Map[K, V]) Get(k K) (v V, ok bool) {
	i, ok := m.at[k]
	if ok {
		v = m.entries[i].val
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
		for _, e := range m.entries {
			if !yield(e.key, e.val) {
				return
			}
		}
	}
}

// Put sets the value of k, and evicts the oldest key if k is new and the map full.
func (m *Map[K, V]) Put(k K, v V) {
	if i, ok := m.at[k]; ok {
		m.entries[i].val = v
		return
	}
	if len(m.entries) < m.limit {
		if n := len(m.entries); n == cap(m.entries) { // doubled: append copies more often
			m.entries = slices.Grow(m.entries, min(max(n, 8), m.limit-n))
		}
		m.at[k] = int32(len(m.entries))
		m.entries = append(m.entries, entry[K, V]{k, v})
		return
	}
	delete(m.at, m.entries[m.oldest].key)
	m.at[k] = int32(m.oldest)
	m.entries[m.oldest] = entry[K, V]{k, v}
	m.oldest = (m.oldest + 1) % m.limit
}
