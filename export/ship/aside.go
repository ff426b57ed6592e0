package ship

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shimtrace/shimtrace/export/journal"
)

// What the backend refuses or fails on is set aside: it is tried again, whole and in
// parts, beside the rest, which goes on. Where it lies in the journal is kept with the
// cursor, so that the next Run reads it again.
//
// An answer that may be no fault of the spans costs none as long as nothing else is
// taken: a wrong address fails for all alike. Only when the backend takes other spans
// meanwhile does a failure count, and spans that have failed often enough so are lost.
const (
	// manyTries is how often a failure of spans must count if the client says nothing.
	manyTries = 20
	// maxAside bounds what is set aside, in number; its parts may be about as many
	// again.
	maxAside = 256
	// maxUnproven bounds what is set aside of which nobody knows yet whether it is to
	// blame: with more of it, the backend is.
	maxUnproven = 32
	// maxHeld bounds the spans that are held in memory, in bytes. Beyond, what is
	// whole waits in the journal.
	maxHeld = 4 << 20
	// fewParts and manyParts bound the uploads that are made of one that failed, to
	// find the spans that are to blame: as long as nothing of it is taken, and then.
	fewParts, manyParts = 64, 512
	// inARow is how many uploads may fail without a pause to find the spans that are
	// to blame.
	inARow = 16
	// unprovenSplit is how often an upload fails before it is tried in parts though
	// nothing says that it is to blame.
	unprovenSplit = 3
)

// aside is what is set aside together.
type aside struct {
	ranges []journal.Range
	part   part // nil: to be read from the journal
	size   int  // of part, in bytes
	origin *origin
	err    error // the last one
	trying bool
	mixed  bool // it has spans of several resources: some may be good

	fails   int // failures of just this
	tries   int // failures that count
	seen    int // successes of others before the last failure
	due     time.Time
	backoff *backoff.ExponentialBackOff
}

// spans is how many spans there are.
func (a *aside) spans() (n int) {
	for _, r := range a.ranges {
		n += r.Spans
	}
	return n
}

// origin is the upload that parts were made of.
type origin struct {
	parts, failures, taken int
	proven                 bool // it has failed while others were taken
}

// setAside sets a failed upload aside and moves the cursor, if there is room.
func (d *delivery) setAside(p part, err error, f *journal.Follower) bool {
	var rejected *RejectedError
	said := errors.As(err, &rejected) && rejected.Tries == 0
	a := &aside{ranges: p.ranges(), mixed: p.resources(), origin: &origin{proven: said}, err: err, backoff: d.newBackoff()}
	d.mu.Lock()
	a.seen = d.successes
	unproven := 0
	for _, b := range d.set {
		if !b.origin.proven {
			unproven++
		}
	}
	room := len(d.set) < maxAside && (said || unproven < maxUnproven)
	if !room && len(d.set) >= maxAside {
		room = d.giveUpOne()
	}
	d.mu.Unlock()
	if !room {
		return false
	}
	if !said {
		a.due = time.Now().Add(a.backoff.NextBackOff())
	}
	d.passed(f, a)
	wake(d.handed)
	return true
}

// beside ships what is set aside until the returned function is called, which says
// what is left of it.
func (d *delivery) beside(c journal.Cursor) (end func() error) {
	d.mu.Lock()
	d.cursor = c
	d.set = nil
	for _, r := range c.Aside {
		d.set = append(d.set, &aside{ranges: []journal.Range{r}, mixed: true, origin: new(origin), tries: r.Tries, seen: d.successes, backoff: d.newBackoff()})
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
			stop() // the journal has gone
		}
		cancel()
		<-done
		stop()
		return d.left()
	}
}

// left is the error that says what is still set aside.
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
			if a.tries == 0 && a.seen < d.successes { // now it counts
				a.due = time.Time{}
			}
		}
	case <-ctx.Done():
	}
}

// next returns what is due for the longest time, or how long to wait for it. Parts that
// have not been tried come first.
func (d *delivery) next() (*aside, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	if d.paused.After(now) {
		return nil, d.paused.Sub(now)
	}
	held := 0
	for _, a := range d.set {
		held += a.size
	}
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

// retry uploads what was set aside once more.
func (d *delivery) retry(work context.Context, a *aside) {
	p := a.part
	if p == nil {
		var err error
		if p, err = d.reread(a.ranges); err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			a.trying, a.due = false, time.Now().Add(a.backoff.NextBackOff())
			d.report(err, a.due)
			return
		}
	}
	var err error
	took := len(p) == 0 // the journal's cap has removed and counted it
	if !took {
		err = d.Client.UploadTraces(work, p.data())
		took = d.took(p, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a.trying = false
	switch {
	case took:
		a.origin.taken++
		d.inARow = 0
		d.beyond.Reset()
		d.settle(a)
		d.report(nil, time.Time{})
	case work.Err() != nil: // for the next Run
	default:
		a.ranges = p.ranges() // without what the journal's cap has removed
		d.judge(a, p, err)
	}
}

// judge says what becomes of a part that has failed again.
func (d *delivery) judge(a *aside, p part, err error) {
	a.err = err
	a.fails++
	var rejected *RejectedError
	isRejected := errors.As(err, &rejected)
	reason, limit := ReasonFailing, manyTries
	if isRejected {
		reason, limit = rejected.Reason, rejected.Tries
	}
	// What the backend has said of the spans needs no proof.
	said := isRejected && limit == 0
	counts := said
	a.mixed = p.resources()
	if !counts && reached(err) {
		a.origin.failures++
		counts = d.successes > a.seen
	}
	a.seen = d.successes
	if counts {
		a.tries++
		a.origin.proven = true
		d.status.Notice = err
	}
	if (a.origin.proven || a.origin.failures >= unprovenSplit) && reached(err) && d.maySplit(a, said) {
		if x, y, ok := p.split(); ok {
			a.origin.parts += 2
			d.divide(a, d.child(a, x), d.child(a, y))
			d.pauseBeside(a, counts)
			return
		}
	}
	if counts && a.tries >= limit && !a.mixed {
		d.giveUp(a, reason)
		return
	}
	a.due = time.Now().Add(pauseAfter(err, a.backoff.NextBackOff()))
	d.pauseBeside(a, counts)
}

// pauseBeside makes everything that is set aside wait after a failure that the backend
// may be to blame for.
func (d *delivery) pauseBeside(a *aside, counts bool) {
	if counts {
		d.inARow = 0
		d.beyond.Reset()
	} else {
		d.inARow++
	}
	if counts || a.origin.proven && reached(a.err) && d.inARow <= inARow {
		d.report(nil, time.Time{})
		return
	}
	d.paused = time.Now().Add(pauseAfter(a.err, d.beyond.NextBackOff()))
	d.report(a.err, d.paused)
}

// maySplit reports whether a part may be tried in parts. With much waiting, spans of
// one resource stay together: who makes bad spans without end pays for it.
func (d *delivery) maySplit(a *aside, said bool) bool {
	if a.mixed {
		return said || len(d.set) < 2*maxAside || d.giveUpOne()
	}
	parts := fewParts
	if a.origin.taken > 0 {
		parts = manyParts
	}
	return a.origin.parts < parts && len(d.set) < maxAside/2
}

// divide puts parts in the place of the whole: behind what waits, so that what is good
// of several is not behind what is bad of one; but before it where it is much.
func (d *delivery) divide(a *aside, x, y *aside) {
	if i := slices.Index(d.set, a); i >= 0 {
		d.set = slices.Delete(d.set, i, i+1)
	}
	if len(d.set) < maxAside {
		d.set = append(d.set, x, y)
	} else {
		d.set = slices.Insert(d.set, 0, x, y)
	}
}

// child is a part of what was set aside.
func (d *delivery) child(a *aside, p part) *aside {
	return &aside{ranges: p.ranges(), part: p, size: p.bytes(), mixed: p.resources(), origin: a.origin, err: a.err, tries: a.tries, seen: d.successes, backoff: d.newBackoff()}
}

// giveUpOne gives up what has failed most often while others were taken, so that
// there is room. It reports whether there was any.
func (d *delivery) giveUpOne() bool {
	var most *aside
	for _, a := range d.set {
		if a.tries > 0 && a.fails > 0 && !a.trying && !a.mixed && (most == nil || a.tries > most.tries) {
			most = a
		}
	}
	if most == nil {
		return false
	}
	reason := ReasonFailing
	var rejected *RejectedError
	if errors.As(most.err, &rejected) {
		reason = rejected.Reason
	}
	d.giveUp(most, reason)
	return true
}

// giveUp counts spans as lost, unless the journal's cap has removed and counted them.
func (d *delivery) giveUp(a *aside, reason string) {
	lost := 0
	for _, r := range a.ranges {
		if journal.Has(d.Dir, r.Segment) {
			lost += r.Spans
		}
	}
	d.reject(reason, lost)
	d.settle(a)
	d.report(nil, time.Time{})
}

// settle forgets what was set aside: it has been taken or counted.
func (d *delivery) settle(a *aside) {
	if i := slices.Index(d.set, a); i >= 0 {
		d.set = slices.Delete(d.set, i, i+1)
	}
	if err := d.save(); err != nil {
		d.report(err, time.Time{})
	}
	wake(d.settled)
}

// reread reads what was set aside from the journal; nothing is left of it if it has
// been removed.
func (d *delivery) reread(ranges []journal.Range) (p part, err error) {
	for _, r := range ranges {
		_, err := journal.ReadRange(d.Dir, r, func(r journal.Record) {
			if r.Kind != journal.KindTraces {
				return
			}
			if t, err := r.Traces(); err == nil { // if not, it was counted when it was read first
				p = p.appendRecord(r, t)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// rests reports whether all that is set aside has been tried often enough to be left
// for later.
func (d *delivery) rests() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !slices.ContainsFunc(d.set, func(a *aside) bool { return !a.origin.proven || a.fails < patience })
}

// spansAside is how many spans are set aside.
func (d *delivery) spansAside() (n int) {
	for _, a := range d.set {
		n += a.spans()
	}
	return n
}
