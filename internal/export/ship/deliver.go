package ship

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
)

const (
	// patience is how often a failure that says nothing of the spans is met with the
	// same upload before it is tried without it.
	patience = 3
	// walk bounds the pause before the upload after one that was set aside: what
	// comes behind shall not wait for long to be tried.
	walk = time.Second
	// maxPause bounds what a backend can ask for.
	maxPause = 5 * time.Minute
)

// follow ships records from the cursor on until Run should end.
func (d *delivery) follow() error {
	cursor, err := journal.ReadCursor(d.Dir)
	if err != nil {
		d.progress(err, time.Time{})
	}
	f := journal.Follow(d.Dir, cursor)
	defer func() {
		d.corrupt += f.Stats().CorruptBytes
		f.Close()
	}()
	end := d.beside(cursor)
	err = d.read(f)
	return errors.Join(err, end())
}

func (d *delivery) read(f *journal.Follower) error {
	last := time.Now()
	for {
		batch, records, err := d.collect(f)
		if records > 0 {
			last = time.Now()
			if err := d.ship(batch, f); err != nil {
				return err // the cursor has not moved
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			err = nil
		} else {
			d.progress(err, time.Now().Add(tick))
		}
		if d.draining() || (d.Once || d.Idle > 0 && time.Since(last) >= d.Idle) && d.rests() {
			return err
		}
		d.watch.wait(d.ctx.Done(), d.settled)
		d.pause(d.Linger, nil)
		if err := d.exists(); err != nil {
			return err
		}
	}
}

// collect reads records for one upload. It returns their number beside what ended
// them, io.EOF at the journal's end.
func (d *delivery) collect(f *journal.Follower) (p part, records int, err error) {
	for size := 0; size < d.BatchBytes; {
		r, err := f.Next()
		if err != nil {
			return p, records, err
		}
		records++
		if r.Kind != journal.KindTraces {
			continue
		}
		size += len(r.Payload)
		t, err := r.Traces()
		if err != nil {
			d.mu.Lock()
			d.reject(losses.Undecodable, r.Spans)
			d.mu.Unlock()
			continue
		}
		p = p.appendRecord(r, t)
	}
	return p, records, nil
}

// ship uploads what was read, however long it takes, or sets it aside if the backend
// may fail on it, and moves the cursor. It returns an error only when Run should end.
func (d *delivery) ship(p part, f *journal.Follower) error {
	if len(p) == 0 {
		d.passed(f, nil)
		return nil
	}
	for tries := 1; ; tries++ {
		err := d.Client.UploadTraces(d.work, p.data())
		if d.took(p, err) {
			d.backoff.Reset()
			d.passed(f, nil)
			return nil
		}
		var rejected *RejectedError
		if errors.As(err, &rejected) && rejected.Tries == 0 {
			// Which spans it is about is found out beside the rest.
			if d.setAside(p, err, f) {
				d.backoff.Reset()
				return nil
			}
		}
		if d.draining() {
			d.progress(err, time.Time{})
			return fmt.Errorf("ship: ended while the backend took no spans; they stay in the journal: %w", err)
		}
		wait := d.failed(err)
		aside := (rejected != nil || tries >= patience) && reached(err) && d.setAside(p, err, f)
		if aside {
			wait = min(wait, walk)
		}
		d.progress(err, time.Now().Add(wait))
		woken := d.settled
		var busy *BusyError
		if errors.As(err, &busy) {
			woken = nil // the pause was asked for
		}
		d.pause(wait, woken)
		if err := d.exists(); err != nil || aside {
			return err
		}
	}
}

// reached reports whether a failed upload has come so far that its spans may be to
// blame.
func reached(err error) bool {
	var away *AwayError
	var busy *BusyError
	return !errors.As(err, &away) && !errors.As(err, &busy)
}

// took counts what the backend has taken or lost of an upload, and reports whether
// that is all of it.
func (d *delivery) took(p part, err error) bool {
	var rejected *RejectedError
	var taken *TakenError
	d.mu.Lock()
	defer d.mu.Unlock()
	spans := p.count()
	switch {
	case err == nil:
	case errors.As(err, &taken):
		d.status.Notice = taken
	case errors.As(err, &rejected) && rejected.Spans != AllSpans:
		lost := min(max(rejected.Spans, 0), spans)
		d.status.Notice = rejected
		d.reject(rejected.Reason, lost)
		spans -= lost
	default:
		return false
	}
	d.status.Shipped += spans
	d.successes++
	wake(d.proof)
	return true
}

// passed moves the cursor behind what was read, of which a part may have been set
// aside. Where it cannot be kept, shipping goes on: a restart would repeat what has
// been shipped since.
func (d *delivery) passed(f *journal.Follower, aside *aside) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if aside != nil {
		d.set = append(d.set, aside)
	}
	d.cursor = f.Cursor()
	d.status.CorruptBytes = d.corrupt + f.Stats().CorruptBytes
	err := d.save()
	if aside == nil || err != nil {
		d.report(err, time.Time{})
	}
}

// save keeps the cursor with what is set aside.
func (d *delivery) save() error {
	c := d.cursor
	c.Aside = nil
	for _, a := range d.set {
		for _, r := range a.ranges {
			r.Tries = a.tries
			c.Aside = append(c.Aside, r)
		}
	}
	return journal.WriteCursor(d.Dir, c)
}

// failed returns the pause until the next attempt.
func (d *delivery) failed(err error) time.Duration { return pauseAfter(err, d.backoff.NextBackOff()) }

func pauseAfter(err error, wait time.Duration) time.Duration {
	var busy *BusyError
	if errors.As(err, &busy) {
		wait = max(wait, min(busy.After, maxPause))
	}
	return wait
}

// exists reports that the journal has been removed. Its lock is gone with it, so
// that what comes in its place is for another shipper.
func (d *delivery) exists() error {
	if _, err := os.Stat(d.Dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ship: the journal was removed: %w", err)
	}
	return nil
}

// pause sleeps, but no longer than Run's context, or until woken.
func (d *delivery) pause(wait time.Duration, woken <-chan struct{}) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-woken:
	case <-d.ctx.Done():
	}
}

// wake makes who waits for the channel look again.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
