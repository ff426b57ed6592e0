package ship

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
)

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
	case work.Err() != nil: // left for the next Run
	default:
		a.ranges = p.ranges() // without what the journal's cap has removed
		d.judge(a, p, err)
	}
}

// judge decides what to do with a part that has failed again.
func (d *delivery) judge(a *aside, p part, err error) {
	a.err = err
	a.fails++
	var rejected *RejectedError
	isRejected := errors.As(err, &rejected)
	reason, limit := losses.CollectorFails, manyTries
	if isRejected {
		reason, limit = rejected.Reason, rejected.Tries
	}
	// If the backend itself blames the spans, no proof is needed.
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

// pauseBeside pauses the uploads of all asides after a failure that the backend may be
// to blame for.
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

// maySplit reports whether a part may be divided. When many wait, spans of one resource
// stay together, so that the source of endless bad spans bears the cost.
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

// divide replaces an aside by two parts. They go behind the asides that wait, so that
// the good spans of several do not wait for the bad ones of one; or before them when
// there are many.
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

// child returns a part of an aside as an aside of its own.
func (d *delivery) child(a *aside, p part) *aside {
	return &aside{ranges: p.ranges(), part: p, size: p.bytes(), mixed: p.resources(), origin: a.origin, err: a.err, tries: a.tries, seen: d.successes, backoff: d.newBackoff()}
}

// giveUpOne makes room by giving up the aside that has failed most often while others
// were taken. It reports whether there was one.
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
	reason := losses.CollectorFails
	var rejected *RejectedError
	if errors.As(most.err, &rejected) {
		reason = rejected.Reason
	}
	d.giveUp(most, reason)
	return true
}

// giveUp counts spans as lost, unless the journal's cap has removed and counted them.
func (d *delivery) giveUp(a *aside, reason losses.Reason) {
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

// settle forgets an aside that has been taken or counted.
func (d *delivery) settle(a *aside) {
	if i := slices.Index(d.set, a); i >= 0 {
		d.set = slices.Delete(d.set, i, i+1)
	}
	if err := d.save(); err != nil {
		d.report(err, time.Time{})
	}
	wake(d.settled)
}
