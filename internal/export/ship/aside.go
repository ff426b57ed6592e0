package ship

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// What the backend refuses or fails on is set aside. It is tried again, whole and in
// parts, beside the rest, which goes on. Its place in the journal is kept with the
// cursor, so that the next Run reads it again.
//
// An answer that may be no fault of the spans loses none as long as no others are
// taken: a wrong address fails for all alike. A failure counts only if the backend
// takes other spans meanwhile. Spans with enough such failures are lost.
const (
	// manyTries is how often a failure must count if the client sets no number.
	manyTries = 20
	// maxAside bounds the number of asides; their parts may be about as many again.
	maxAside = 256
	// maxUnproven bounds the asides that are not yet known to be to blame: if there are
	// more, the backend is.
	maxUnproven = 32
	// maxHeld bounds the spans held in memory, in bytes. Beyond that, whole asides wait
	// in the journal.
	maxHeld = 4 << 20
	// fewParts and manyParts bound the uploads that one failed upload is divided into
	// to find the spans to blame: before any of it was taken, and after.
	fewParts, manyParts = 64, 512
	// inARow is how many uploads may fail without a pause during that search.
	inARow = 16
	// unprovenSplit is how often an upload fails before it is tried in parts although
	// nothing shows that it is to blame.
	unprovenSplit = 3
)

// aside is a set of spans set aside together.
type aside struct {
	ranges []journal.Range
	part   part // nil: it is still in the journal
	size   int  // of part, in bytes
	origin *origin
	err    error // the last failure
	trying bool
	mixed  bool // it has spans of several resources: some may be taken

	fails   int // failures of this aside, without those of the whole
	tries   int // failures that count
	seen    int // successes of others before the last failure
	due     time.Time
	backoff *backoff.ExponentialBackOff
}

// spans returns the number of spans.
func (a *aside) spans() (n int) {
	for _, r := range a.ranges {
		n += r.Spans
	}
	return n
}

// origin is the upload that the parts come from.
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

// reread reads from the journal what was set aside. It returns an empty part if that
// has been removed, and counts spans that have become unreadable.
func (d *delivery) reread(ranges []journal.Range) (p part, err error) {
	unreadable := 0
	for stretch, r := range ranges {
		before := len(p)
		there, err := journal.ReadRange(d.Dir, r, func(r journal.Record) {
			if !d.concerns(r) {
				return
			}
			if t, err := r.Traces(); err == nil { // if not, it was counted at the first reading
				if r.Kind == journal.KindPosted {
					d.chosen.Sift(t)
				}
				p = p.appendRecord(r, t, stretch)
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

// spansAside returns the number of spans set aside.
func (d *delivery) spansAside() (n int) {
	for _, a := range d.set {
		n += a.spans()
	}
	return n
}
