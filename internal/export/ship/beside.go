package ship

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// beside ships what is set aside until the returned function is called, which returns
// an error about what is left.
func (d *delivery) beside(c journal.Cursor) (end func() error) {
	d.mu.Lock()
	d.cursor = c
	d.set = nil
	for _, r := range c.Aside {
		d.set = append(d.set, &aside{ranges: []journal.Range{r}, mixed: true, origin: &origin{proven: r.Tries > 0}, tries: r.Tries, seen: d.successes, backoff: d.newBackoff()})
	}
	d.mu.Unlock()
	ctx, cancel := context.WithCancel(d.ctx)
	work, stop := context.WithCancel(d.work)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if a, wait := d.next(); a != nil {
				d.retry(work, a)
			} else {
				d.await(ctx, wait)
			}
		}
	}()
	return func() error {
		if !d.draining() {
			stop() // the journal is gone
		}
		cancel()
		<-done
		stop()
		return d.left()
	}
}

// left returns an error that says what is still set aside, or nil.
func (d *delivery) left() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	last := errors.New("not tried yet")
	for _, a := range d.set {
		if a.err != nil {
			last = a.err
		}
	}
	if len(d.set) == 0 {
		return nil
	}
	return fmt.Errorf("ship: ended with %d spans set aside that the backend failed on; they stay in the journal: %w", d.spansAside(), last)
}

// await waits until something may be due.
func (d *delivery) await(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.handed:
	case <-d.proof:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.paused = time.Time{}
		d.beyond.Reset()
		for _, a := range d.set {
			if a.tries == 0 && a.seen < d.successes && (a.err == nil || reached(a.err)) { // its failure now counts
				a.due = time.Time{}
			}
		}
	case <-ctx.Done():
	}
}

// next returns the aside that has been due longest, or how long to wait for it. Untried
// parts come first.
func (d *delivery) next() (*aside, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if d.paused.After(now) {
		return nil, d.paused.Sub(now)
	}
	held := d.held()
	var first *aside
	for _, a := range d.set {
		if (a.part != nil || held < maxHeld) && (first == nil || a.due.Before(first.due)) {
			first = a
		}
	}
	switch {
	case first == nil:
		return nil, time.Minute
	case first.due.After(now):
		return nil, first.due.Sub(now)
	}
	first.trying = true
	return first, 0
}

// held returns the size of the spans in memory, in bytes.
func (d *delivery) held() (n int) {
	for _, a := range d.set {
		n += a.size
	}
	return n
}

// rests reports whether every aside has been tried often enough to be left for later,
// or waits for one that has.
func (d *delivery) rests() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	full := d.held() >= maxHeld
	return !slices.ContainsFunc(d.set, func(a *aside) bool {
		return !(a.origin.proven && a.fails >= patience || full && a.part == nil)
	})
}
