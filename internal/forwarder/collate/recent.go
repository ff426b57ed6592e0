package collate

// recent is a map that remembers the entries put last, at most limit.
type recent[K comparable, V any] struct {
	limit   int
	entries map[K]V
	order   []K // of arrival, a ring once it is full
	oldest  int
}

func newRecent[K comparable, V any](limit int) recent[K, V] {
	return recent[K, V]{limit: limit, entries: make(map[K]V)}
}

func (r *recent[K, V]) get(k K) (V, bool) {
	v, ok := r.entries[k]
	return v, ok
}

func (r *recent[K, V]) put(k K, v V) {
	if _, ok := r.entries[k]; !ok {
		if len(r.order) < r.limit {
			r.order = append(r.order, k)
		} else {
			delete(r.entries, r.order[r.oldest])
			r.order[r.oldest] = k
			r.oldest = (r.oldest + 1) % r.limit
		}
	}
	r.entries[k] = v
}
