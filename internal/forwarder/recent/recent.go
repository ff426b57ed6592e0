// Package recent has maps that are bounded: they forget what was put first.
//
// It is not safe for concurrent use. Packages calls and collate remember with it what a
// guest may send any amount of.
package recent

import (
	"iter"
	"maps"
)

// Map is a map of the entries put last, at most as many as its limit.
type Map[K comparable, V any] struct {
	limit   int
	entries map[K]V
	order   []K // of arrival, a ring once it is full
	oldest  int
}

// New returns a Map with a limit.
func New[K comparable, V any](limit int) Map[K, V] {
	return Map[K, V]{limit: limit, entries: make(map[K]V)}
}

// Get returns the value of k.
func (m *Map[K, V]) Get(k K) (V, bool) {
	v, ok := m.entries[k]
	return v, ok
}

// Has reports whether there is a value of k.
func (m *Map[K, V]) Has(k K) bool {
	_, ok := m.entries[k]
	return ok
}

// All returns all keys and values.
func (m *Map[K, V]) All() iter.Seq2[K, V] { return maps.All(m.entries) }

// Len returns the number of entries.
func (m *Map[K, V]) Len() int { return len(m.entries) }

// Put sets the value of k, at the expense of the oldest key if k is new.
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
