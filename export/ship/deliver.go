package ship

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/export/journal"
)

// maxParts bounds the uploads that are made of one that was refused as a whole, to
// find the spans that are to blame.
const maxParts = 64

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
	last := time.Now()
	for {
		batch, records, err := d.collect(f)
		if records > 0 {
			last = time.Now()
			if err := d.ship(batch); err != nil {
				return err // the cursor has not moved
			}
			d.save(f)
			continue
		}
		if errors.Is(err, io.EOF) {
			err = nil
		} else {
			d.progress(err, time.Now().Add(tick))
		}
		if d.draining() || d.Once || d.Idle > 0 && time.Since(last) >= d.Idle {
			return err
		}
		d.watch.wait(d.ctx.Done())
		d.pause(d.Linger)
		if err := d.exists(); err != nil {
			return err
		}
	}
}

// collect reads records for one upload. It returns their number beside what ended
// them, io.EOF at the journal's end.
func (d *delivery) collect(f *journal.Follower) (t *tracepb.TracesData, records int, err error) {
	t = new(tracepb.TracesData)
	for size := 0; size < d.BatchBytes; {
		r, err := f.Next()
		if err != nil {
			return t, records, err
		}
		records++
		if r.Kind != journal.KindTraces {
			continue
		}
		size += len(r.Payload)
		part, err := r.Traces()
		if err != nil {
			d.reject(ReasonUndecodable, r.Spans)
			continue
		}
		t.ResourceSpans = append(t.ResourceSpans, part.ResourceSpans...)
	}
	return t, records, nil
}

// save keeps the cursor. Where it cannot be kept, shipping goes on: a restart
// would repeat what has been shipped since.
func (d *delivery) save(f *journal.Follower) {
	d.status.CorruptBytes = d.corrupt + f.Stats().CorruptBytes
	d.progress(journal.WriteCursor(d.Dir, f.Cursor()), time.Time{})
}

// ship uploads a batch, however long it takes. It returns an error only when Run
// should end.
func (d *delivery) ship(t *tracepb.TracesData) error {
	if len(t.ResourceSpans) == 0 {
		return nil
	}
	parts, refusals := 1, 0
	pending := []*tracepb.TracesData{t}
	for len(pending) > 0 {
		t := pending[0]
		err := d.Client.UploadTraces(d.work, t.ResourceSpans)
		spans := journal.CountSpans(t)
		var rejected *RejectedError
		switch {
		case err == nil:
			d.status.Shipped += spans
		case !errors.As(err, &rejected):
			if err := d.failed(err); err != nil {
				return err
			}
			continue
		case rejected.Spans != AllSpans:
			d.reject(rejected.Reason, rejected.Spans)
			d.status.Shipped += max(spans-rejected.Spans, 0)
		default:
			// Its parts are refused at once if the whole was often enough.
			if refusals++; refusals < rejected.Tries {
				if err := d.failed(err); err != nil {
					return err
				}
				continue
			}
			if a, b, ok := journal.Split(t); ok && parts < maxParts {
				parts += 2
				pending = append([]*tracepb.TracesData{a, b}, pending[1:]...)
				continue
			}
			d.reject(rejected.Reason, spans)
		}
		d.backoff.Reset()
		pending = pending[1:]
	}
	return nil
}

// failed waits until the next attempt. When Run should end it does so at once, and
// there is one more attempt if it was waiting.
func (d *delivery) failed(err error) error {
	if d.draining() {
		d.progress(err, time.Time{})
		return fmt.Errorf("ship: ended while the backend took no spans; they stay in the journal: %w", err)
	}
	wait := d.backoff.NextBackOff()
	var busy *BusyError
	if errors.As(err, &busy) {
		wait = max(wait, min(busy.After, maxPause))
	}
	d.progress(err, time.Now().Add(wait))
	d.pause(wait)
	return d.exists()
}

// exists reports that the journal has been removed. Its lock is gone with it, so
// that what comes in its place is for another shipper.
func (d *delivery) exists() error {
	if _, err := os.Stat(d.Dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ship: the journal was removed: %w", err)
	}
	return nil
}

// maxPause bounds what a backend can ask for.
const maxPause = 5 * time.Minute

// pause sleeps, but no longer than Run's context.
func (d *delivery) pause(wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.ctx.Done():
	}
}
