package post

import "sync/atomic"

// Room is memory for the bodies of all posts together, in bytes.
type Room struct{ free atomic.Int64 }

// NewRoom returns a Room of that many bytes.
func NewRoom(bytes int) *Room {
	r := new(Room)
	r.free.Store(int64(bytes))
	return r
}

// Reserve takes n bytes and reports whether there were as many.
func (r *Room) Reserve(n int) bool {
	if r.free.Add(-int64(n)) < 0 {
		r.Release(n)
		return false
	}
	return true
}

// Release gives n bytes back.
func (r *Room) Release(n int) { r.free.Add(int64(n)) }

// Free returns how many bytes are left.
func (r *Room) Free() int { return int(r.free.Load()) }
