// Package recent has bounded maps, which forget the keys that were added first.
//
// They are not safe for concurrent use. Packages calls and collate use them for what guests may
// send in any amount, package route for the processes that have posted.
package recent

import (
	"iter"
	"maps"
)

// Map holds the entries added last, up to its limit.
type Map[K comparable, V any] struct {
	limit   int
	entries map[K]V
	order   []K // of arrival; a ring once full
	oldest  int
}

// New returns a Map of at most limit entries.
func New[K comparable, V any](limit int) Map[K, V] {
	return Map[K, V]{limit: limit, entries: make(map[K]V)}
}

// Get returns the value of k, and whether there is one.
func (m *Map[K, V]) Get(k K) (V, bool) {
	v, ok := m.entries[k]
	return v, ok
}

// Has reports whether k has a value.
func (m *Map[K, V]) Has(k K) bool {
	_, ok := m.entries[k]
	return ok
}

// All returns all keys and values, in no order.
func (m *Map[K, V]) All() iter.Seq2[K, V] { return maps.All(m.entries) }

// Len returns the number of entries.
func (m *Map[K, V]) Len() int { return len(m.entries) }

// Put sets the value of k, and evicts the oldest key if k is new and the map full.
func (m *Map[K, V]) Put(k K, v V) {
	if _, ok := m.entries[k]; !ok {
		if len(m.order) < m.limit {
			m.order = append(m.order, k)
		} else {
			delete(m.entries, m.order[m.oldest])
			m.order[m.oldest] = k
			m.oldest = (m.oldest + 1) % m.limit
		}
	}
	m.entries[k] = v
}
