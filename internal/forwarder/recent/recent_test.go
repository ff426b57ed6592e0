package recent

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// TestMap holds maps of several limits to what they should remember, a list of the keys added
// last.
func TestMap(t *testing.T) {
	for _, limit := range []int{1, 5, perBlock, perBlock + 1, 3 * perBlock} {
		m := New[int, int](limit)
		var keys []int // the oldest first
		values := map[int]int{}
		r := rand.New(rand.NewPCG(1, uint64(limit)))
		for step := range 20 * limit {
			k := r.IntN(3 * limit)
			if _, known := values[k]; !known {
				if len(keys) == limit {
					delete(values, keys[0])
					keys = keys[1:]
				}
				keys = append(keys, k)
			}
			m.Put(k, step)
			values[k] = step
			if got := maps.Collect(m.All()); !maps.Equal(got, values) {
				t.Fatalf("limit %d, after %d: %v, want %v", limit, step, got, values)
			}
			for k := range 3 * limit {
				want, known := values[k]
				if v, ok := m.Get(k); ok != known || v != want || m.Has(k) != known {
					t.Fatalf("limit %d, after %d: key %d has %d, %t, want %d, %t", limit, step, k, v, ok, want, known)
				}
			}
		}
	}
}
