package route

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// held are batches whose sandbox is unknown, in the order in which they came.
type held struct {
	batches []*heldBatch
	bytes   int
}

type heldBatch struct {
	*batch
	until time.Time
}

// heldOverhead is what a held batch costs beyond its messages, in bytes.
const heldOverhead = 256

func (b *batch) cost() int { return cap(b.messages) + heldOverhead }

// hold keeps a batch until its sandbox is known. The caller holds the lock.
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

// count adds n (1 or -1) held batches like b.
func (h *held) count(b *batch, n int) {
	h.bytes += n * b.cost()
	if b.from != nil {
		b.from.held += n
	}
}

// releaseHeld gives away the batches whose sandbox is known by now. It learns from all
// of them first, since a later batch may identify an earlier one: so they stay in
// order. The caller holds the lock.
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

// expire counts as lost the batches that have waited too long.
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
