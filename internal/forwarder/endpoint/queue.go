package endpoint

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder/post"
)

// answered is an answered request.
type answered struct {
	peer netip.AddrPort
	body []byte
}

// queue holds the posts that wait to be decoded, in order, and accounts for their
// memory and that of bodies still being read.
type queue struct {
	posts   chan answered
	room    *post.Room
	pending *atomic.Int64 // posts

	mu      sync.Mutex
	closed  bool
	in, out uint64 // posts put, posts done
	waiting []waiter
}

// waiter waits until out posts are done.
type waiter struct {
	out  uint64
	done chan struct{}
}

func newQueue(posts, bytes int, pending *atomic.Int64) *queue {
	return &queue{posts: make(chan answered, posts), room: post.NewRoom(bytes), pending: pending}
}

// put queues a post, whose body's capacity has been reserved, and reports whether there
// was room.
func (q *queue) put(p answered) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	select {
	case q.posts <- p:
		q.in++
		q.pending.Add(1)
		return true
	default:
		return false
	}
}

// done releases a post that was taken out of the queue.
func (q *queue) done(p answered) {
	q.room.Release(cap(p.body))
	q.pending.Add(-1)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out++
	for len(q.waiting) > 0 && q.waiting[0].out <= q.out {
		close(q.waiting[0].done)
		q.waiting = q.waiting[1:]
	}
}

// handled returns a channel that is closed when all posts so far are done.
func (q *queue) handled() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	done := make(chan struct{})
	if q.out == q.in {
		close(done)
	} else {
		q.waiting = append(q.waiting, waiter{q.in, done}) // in order, for q.in only grows
	}
	return done
}

// close ends the queue after the posts in it.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.posts)
	}
}
