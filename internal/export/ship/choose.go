package ship

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/tail"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/private"
)

// decidedName is the file, beside the cursor, that says which sandboxes' spans are shipped. It
// is kept because a sandbox's last spans come long after the decision.
const decidedName = "decided.json"

// maxDecided bounds the file, in bytes.
const maxDecided = 1 << 20

// choose begins with what earlier shippers to the target held.
func (d *delivery) choose(c journal.Cursor) {
	d.chosen = d.choice.Sampler()
	d.mu.Lock()
	d.unread = c.Held
	d.mu.Unlock()
	_ = d.restore() // again before each upload
}

// restore reads the held records that have not been read yet, and holds each again or lets it
// go. Those that cannot be read now stay held.
func (d *delivery) restore() (err error) {
	d.mu.Lock()
	held := d.unread
	d.unread = nil
	d.mu.Unlock()
	for _, at := range held {
		rerr := d.readHeld(at, func(r journal.Record, t *tracepb.TracesData) { d.chosen.Restore(r, t, time.Now()) })
		err = errors.Join(err, rerr)
	}
	return err
}

// readHeld calls fn with a held record, unless the journal's cap has removed and counted it. A
// record that cannot be read now stays held until restore; one that cannot be decoded is lost.
func (d *delivery) readHeld(at journal.Range, fn func(journal.Record, *tracepb.TracesData)) error {
	found := false
	there, err := journal.ReadRange(d.Dir, at, func(r journal.Record) {
		if t, err := r.Traces(); err == nil {
			found = true
			fn(r, t)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case found:
	case err != nil:
		d.unread = append(d.unread, at)
		return fmt.Errorf("ship: %d spans that are held: %w", at.Spans, err)
	case there:
		d.reject(losses.Undecodable, at.Spans)
	}
	return nil
}

// A Choice is a journal's [tail.Choice] with its file: each target gets the same sandboxes.
type Choice struct {
	*tail.Choice
	path string

	mu    sync.Mutex
	saved int // decisions in the file
}

// NewChoice begins with what was decided before on the journal in a directory.
func NewChoice(dir string, o tail.Options) *Choice {
	path := filepath.Join(dir, decidedName)
	c := &Choice{Choice: tail.New(o, readDecided(path)), path: path}
	if o.Only != "" && o.Only != tail.All {
		c.know(dir, time.Now().Add(-knownTime))
	}
	return c
}

// knownTime is for how long spans of other programs may come after the sandbox's spans in
// their trace: those of a request when it ends.
const knownTime = 15 * time.Minute

// know learns again which traces the decided sandboxes' spans of the last minutes are in.
// If the journal cannot be read, shipping says so.
func (c *Choice) know(dir string, since time.Time) {
	_, _ = journal.Scan(dir, func(r journal.Record) error {
		if r.Kind == journal.KindTraces && r.Time.After(since) {
			if t, err := r.Traces(); err == nil {
				c.Know(t)
			}
		}
		return nil
	})
}

func readDecided(path string) map[tail.Key]bool {
	text, err := private.Read(path, maxDecided)
	decided := make(map[tail.Key]bool)
	if err != nil || json.Unmarshal(text, &decided) != nil {
		return nil
	}
	return decided
}

// save writes the decisions if there are any new ones.
func (c *Choice) save() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Made() == c.saved {
		return nil
	}
	decided, made := c.Decided()
	text, err := json.Marshal(decided)
	if err != nil {
		return err
	}
	if err := private.Replace(c.path, c.path+".tmp", text, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.saved = made
	return nil
}

// take returns the next record with its spans: one that was held, or the follower's next. The
// spans are nil if the record is not to be shipped, or not yet. The error is io.EOF when there
// is no record for now.
func (d *delivery) take(f *journal.Follower) (r journal.Record, t *tracepb.TracesData, held bool, err error) {
	if at, ok := d.chosen.Next(); ok {
		err := d.readHeld(at, func(held journal.Record, of *tracepb.TracesData) {
			r, t = held, of
			r.Payload = bytes.Clone(held.Payload)
		})
		if t != nil && r.Kind == journal.KindPosted {
			d.chosen.Filter(t)
		}
		return r, t, true, err
	}
	r, err = f.Next()
	if err != nil || !d.concerns(r) {
		return r, nil, false, err
	}
	if t, err = d.decode(r); err != nil {
		return r, nil, false, nil // counted
	}
	if d.chosen.Take(r, t, time.Now()) != tail.Ship {
		return r, nil, false, nil
	}
	if r.Kind == journal.KindPosted {
		d.chosen.Filter(t)
	}
	return r, t, false, nil
}

// concerns reports whether a record has spans that the target has not had yet.
func (d *delivery) concerns(r journal.Record) bool {
	return r.Kind.Traces() && !r.Kept && !slices.Contains(r.Taken, d.Target)
}

// decode decodes a record, or counts it as lost.
func (d *delivery) decode(r journal.Record) (*tracepb.TracesData, error) {
	t, err := r.Traces()
	if err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.reject(losses.Undecodable, r.Spans)
	}
	return t, err
}

// countOut counts the spans that were kept out.
func (d *delivery) countOut() {
	if n := d.chosen.Count(); n > 0 {
		d.status.KeptOut += n
		d.lose(losses.KeptOut, n)
	}
}

// lose counts spans in the journal that the target does not get.
func (d *delivery) lose(reason losses.Reason, spans int) {
	if d.Journal != nil {
		d.Journal.LoseTo(d.Target, reason, spans)
		_ = d.Journal.Flush() // if the disk is full, kept for the next record
	}
}
