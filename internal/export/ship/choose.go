package ship

import (
	"bytes"
	"encoding/json"
	"errors"
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

// decidedName is the file, beside the cursor, of which sandboxes' spans are shipped: a
// sandbox's last spans come long after the decision.
const decidedName = "decided.json"

// maxDecided bounds the file, in bytes.
const maxDecided = 1 << 20

// choose begins with what earlier shippers to the target held.
func (d *delivery) choose(c journal.Cursor) {
	d.chosen = d.choice.Sampler()
	for _, at := range c.Held {
		_, _ = journal.ReadRange(d.Dir, at, func(r journal.Record) { // what is gone has been counted
			if t, err := r.Traces(); err == nil {
				d.chosen.Restore(r, t, time.Now())
			}
		})
	}
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
	return &Choice{Choice: tail.New(o, readDecided(path)), path: path}
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

// take returns the next record that is to be shipped, with its spans: one that was held,
// or the follower's next. The spans are nil for one that is not, and the error is
// io.EOF when there is none for now.
func (d *delivery) take(f *journal.Follower) (r journal.Record, t *tracepb.TracesData, held bool, err error) {
	if at, ok := d.chosen.Next(); ok {
		_, err := journal.ReadRange(d.Dir, at, func(held journal.Record) {
			if t, err = d.decode(held); err == nil {
				r = held
				r.Payload = bytes.Clone(held.Payload)
			}
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
