package route

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// held are batches of which nothing tells whose they are, in the order in which they
// came.
type held struct {
	batches []*heldBatch
	bytes   int
}

type heldBatch struct {
	*batch
	until time.Time
}

// heldOverhead is what a batch that is held costs beyond its messages, in bytes.
const heldOverhead = 256

func (b *batch) cost() int { return cap(b.messages) + heldOverhead }

// hold keeps a batch until something tells. The caller holds the lock.
func (r *Router) hold(b *batch) {
	if r.closed {
		r.lose(losses.Shutdown, b.spans)
		return
	}
	if r.held.bytes+b.cost() > r.opts.HeldBytes {
		r.lose(losses.HeldFull, b.spans)
		return
	}
	r.held.batches = append(r.held.batches, &heldBatch{b, time.Now().Add(r.opts.Hold)})
	r.held.count(b, 1)
}

// count counts a batch that is held from now on, or is no more.
func (h *held) count(b *batch, n int) {
	h.bytes += n * b.cost()
	if b.from != nil {
		b.from.held += n
	}
}

// releaseHeld gives away what is known by now. First all is learned, since a later
// batch may tell of an earlier one: they stay in order. The caller holds the lock.
func (r *Router) releaseHeld() {
	for news := true; news; {
		news = false
		for _, b := range r.held.batches {
			if c, proven := r.whose(b.batch); c != nil && r.learn(b.batch, c, proven) {
				news = true
			}
		}
	}
	rest := r.held.batches[:0]
	for _, b := range r.held.batches {
		if c, _ := r.whose(b.batch); c != nil {
			r.held.count(b.batch, -1)
			r.give(c, b.batch)
		} else {
			rest = append(rest, b)
		}
	}
	clear(r.held.batches[len(rest):])
	r.held.batches = rest
}

// expire counts as lost what has waited for too long.
func (r *Router) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, b := range r.held.batches {
		if now.Before(b.until) {
			break
		}
		r.lose(losses.UnknownSandbox, b.spans)
		r.held.count(b.batch, -1)
		n++
	}
	clear(r.held.batches[:n])
	r.held.batches = r.held.batches[n:]
}
