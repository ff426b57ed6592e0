package ship

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
)

const (
	// patience is how often an upload is repeated whole after failures that say nothing
	// about its spans, before it is set aside.
	patience = 3
	// walk bounds the pause after an upload was set aside, so that the next one is
	// tried soon.
	walk = time.Second
	// maxPause bounds the pause that a backend can ask for.
	maxPause = 5 * time.Minute
)

// follow ships records from the cursor on until Run should end.
func (d *delivery) follow() error {
	cursor, err := journal.ReadCursor(d.Dir, d.Target)
	if err != nil {
		d.progress(err, time.Time{})
	}
	f := journal.Follow(d.Dir, cursor)
	defer func() {
		d.corrupt += f.Stats().CorruptBytes
		f.Close()
	}()
	d.choose(cursor)
	end := d.beside(cursor)
	err = d.read(f)
	return errors.Join(err, end())
}

func (d *delivery) read(f *journal.Follower) error {
	last := time.Now()
	for {
		draining := d.draining()
		batch, records, err := d.collect(f)
		if records > 0 {
			last = time.Now()
			if err := d.ship(batch, f); err != nil {
				return err // the cursor has not moved
			}
			// What comes while this one ends is for the next: otherwise it would end only
			// when its time is over, in the middle of an upload, which would be repeated.
			if !draining || !errors.Is(err, io.EOF) {
				continue
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		} else {
			d.progress(err, time.Now().Add(tick))
		}
		if d.draining() || (d.Once || d.Idle > 0 && time.Since(last) >= d.Idle && !d.waits()) && d.rests() {
			return err
		}
		d.watch.wait(d.ctx.Done(), d.settled)
		d.pause(d.Linger, nil)
		if err := d.exists(); err != nil {
			return err
		}
	}
}

// maxStretches bounds the stretches of the journal that one upload is from, and so the ranges
// that are set aside with it.
const maxStretches = 8

// collect reads records for one upload. It returns their number and the error that
// ended them, io.EOF at the journal's end.
func (d *delivery) collect(f *journal.Follower) (p part, records int, err error) {
	unread := d.restore()
	d.chosen.Expire(time.Now())
	stretch := 0
	for size := 0; size < d.BatchBytes && stretch < maxStretches; {
		r, t, held, err := d.take(f)
		if errors.Is(err, io.EOF) && unread != nil {
			err = unread
		}
		if err != nil {
			return p, records, err
		}
		records++
		if held || t == nil && d.concerns(r) {
			stretch++ // this record separates what is before it from what is behind
		}
		if t == nil {
			continue
		}
		size += len(r.Payload)
		p = p.appendRecord(r, t, stretch)
		if held {
			stretch++
		}
	}
	return p, records, nil
}

// ship uploads a part, however long it takes, or sets it aside if it may be to blame
// for a failure, and moves the cursor. It returns an error only when Run should end.
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
			// The spans to blame are found beside the rest.
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

// reached reports whether a failed upload got far enough for its spans to be to blame.
func reached(err error) bool {
	var away *AwayError
	var busy *BusyError
	return !errors.As(err, &away) && !errors.As(err, &busy)
}

// took counts the spans that the backend has taken or lost, and reports whether that
// settles the whole upload.
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

// passed moves the cursor behind the records read, some of which may have been set
// aside. If the cursor cannot be written, shipping goes on: a restart would repeat what
// has been shipped since.
func (d *delivery) passed(f *journal.Follower, aside *aside) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if aside != nil {
		d.set = append(d.set, aside)
	}
	d.cursor = f.Cursor()
	d.chosen.Settled()
	d.countOut()
	d.status.CorruptBytes = d.corrupt + f.Stats().CorruptBytes
	err := d.save()
	if aside == nil || err != nil {
		d.report(err, time.Time{})
	}
}

// waits reports whether anything is held.
func (d *delivery) waits() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.unread) > 0 || d.chosen.Waits()
}

// save writes the cursor, with what is held and set aside.
func (d *delivery) save() error {
	c := d.cursor
	c.Aside, c.Held = nil, append(d.chosen.Held(), d.unread...)
	for _, a := range d.set {
		for _, r := range a.ranges {
			r.Tries = a.tries
			c.Aside = append(c.Aside, r)
		}
	}
	// A decision without its cursor is made again; a cursor without its decision is not.
	return errors.Join(d.choice.save(), journal.WriteCursor(d.Dir, d.Target, c))
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

// exists returns an error if the journal has been removed. Its lock is gone too, so a
// journal in its place is for another shipper.
func (d *delivery) exists() error {
	if _, err := os.Stat(d.Dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ship: the journal was removed: %w", err)
	}
	return nil
}

// pause sleeps until wait is over, it is woken, or Run's context ends.
func (d *delivery) pause(wait time.Duration, woken <-chan struct{}) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-woken:
	case <-d.ctx.Done():
	}
}

// wake wakes the goroutine that waits for the channel.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
