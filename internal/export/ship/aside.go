package ship

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
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

// reread reads what was set aside from the journal; nothing is left of it if it has
// been removed. What has become unreadable meanwhile is counted.
func (d *delivery) reread(ranges []journal.Range) (p part, err error) {
	unreadable := 0
	for _, r := range ranges {
		before := len(p)
		there, err := journal.ReadRange(d.Dir, r, func(r journal.Record) {
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
		if there {
			unreadable += max(r.Spans-p[before:].count(), 0)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reject(losses.Undecodable, unreadable)
	return p, nil
}

// spansAside is how many spans are set aside.
func (d *delivery) spansAside() (n int) {
	for _, a := range d.set {
		n += a.spans()
	}
	return n
}
