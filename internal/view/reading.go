package view

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/explain/causes"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Reader reads one journal, and keeps what it noticed.
type Reader struct {
	// Dir is the journal's directory.
	Dir string
	// Out receives the output, Warn what is missing from it and why.
	Out  io.Writer
	Warn func(format string, args ...any)

	stats   journal.Stats
	drops   map[string]int // spans lost, by reason
	losses  []causes.Loss  // the same, without those carried over from removed segments
	decoded int            // records
	unknown int            // of them, intact ones that could not be decoded

	others             []*waterfall.Story // traces of other programs alone
	omitted, forgotten int                // spans and stories left out at the bounds
	outside            int                // other programs' spans left out
}

// scan calls fn with each traces record, the oldest first.
func (r *Reader) scan(fn func(journal.Record) error) error {
	r.drops, r.losses, r.unknown = make(map[string]int), nil, 0
	var err error
	r.stats, err = journal.Scan(r.Dir, func(rec journal.Record) error {
		switch rec.Kind {
		case journal.KindTraces, journal.KindPosted:
			return fn(rec)
		case journal.KindDrops, journal.KindCarried:
			drops, err := rec.Drops()
			if err != nil {
				r.unknown++
				return nil
			}
			for reason, spans := range drops {
				r.drops[reason] += spans
				if rec.Kind == journal.KindDrops && len(r.losses) < maxLosses {
					r.losses = append(r.losses, causes.Loss{At: rec.Time, Reason: reason, Spans: spans})
				}
			}
		}
		return nil
	})
	return whoMay(err)
}

// maxLosses bounds the losses that are told apart.
const maxLosses = 1 << 14

// whoMay adds to an error of a journal that may not be read who may read it.
func whoMay(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run it as root, to whom the journal belongs", err)
	}
	return err
}

// readable counts a record that has been decoded, as unknown if that failed with err.
func (r *Reader) readable(err error) {
	r.decoded++
	if err != nil {
		r.unknown++
	}
}

// readGC trades time for memory while a journal is read: far more passes through than
// is kept.
const readGC = 30

// stories returns the journal's stories, the oldest first.
func (r *Reader) stories() ([]*waterfall.Story, error) {
	debug.SetGCPercent(readGC)
	index := waterfall.NewIndex()
	err := r.scan(func(rec journal.Record) error {
		r.readable(addToIndex(index, rec))
		return nil
	})
	stories := index.Stories()
	r.others = index.Others()
	r.omitted, r.forgotten = index.Omitted()
	r.outside = index.Outside()
	return stories, err
}

func addToIndex(x *waterfall.Index, rec journal.Record) error {
	if rec.Kind == journal.KindPosted {
		return x.AddPosted(rec.Payload, rec.Time)
	}
	return x.Add(rec.Payload, rec.Time)
}

func addTo(b *waterfall.Builder, rec journal.Record) error {
	if rec.Kind == journal.KindPosted {
		return b.AddPosted(rec.Payload)
	}
	return b.Add(rec.Payload)
}

// wanted says which records may have spans of a story. A record's header tells: most
// records of a journal are other sandboxes'.
type wanted struct {
	all    bool
	source journal.Source
}

func wantedBy(s *waterfall.Story) wanted {
	return wanted{s.Sandbox == "" || s.Shares(), journal.SourceOf(s.Sandbox)}
}

func (w wanted) has(rec journal.Record) bool {
	return w.all || rec.Kind == journal.KindPosted || rec.Source == 0 || rec.Source == w.source
}

func (r *Reader) tree(s *waterfall.Story, l waterfall.Limits, details bool) (*waterfall.Tree, error) {
	b, want := waterfall.NewBuilder(s, l, details), wantedBy(s)
	err := r.scan(func(rec journal.Record) error {
		if want.has(rec) {
			r.readable(addTo(b, rec))
		}
		return nil
	})
	return b.Tree(), err
}

// trees calls fn with each story's tree with details. It builds as many trees at a time as fit
// into memory, in bytes, and scans the journal once for each such part of the stories.
func (r *Reader) trees(stories []*waterfall.Story, memory int, fn func(*waterfall.Story, *waterfall.Tree)) error {
	const perSpan = 1 << 10 // bytes, about
	for len(stories) > 0 {
		n, spans := 0, 0
		for ; n < len(stories) && (n == 0 || (spans+stories[n].Spans)*perSpan <= memory); n++ {
			spans += stories[n].Spans
		}
		builders, wants := make([]*waterfall.Builder, n), make([]wanted, n)
		for i, s := range stories[:n] {
			wants[i] = wantedBy(s)
			builders[i] = waterfall.NewBuilder(s, waterfall.Limits{Bytes: memory}, true)
		}
		err := r.scan(func(rec journal.Record) error {
			for i, b := range builders {
				if wants[i].has(rec) {
					r.readable(addTo(b, rec))
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i, b := range builders {
			fn(stories[i], b.Tree())
			builders[i] = nil
		}
		stories = stories[n:]
	}
	return nil
}

// writeJSON writes a story's spans as one document.
func (r *Reader) writeJSON(s *waterfall.Story) error {
	j, want := waterfall.NewJSONWriter(r.Out), wantedBy(s)
	err := r.scan(func(rec journal.Record) error {
		switch {
		case !want.has(rec):
			return nil
		case rec.Kind == journal.KindPosted:
			return j.AddPosted(s, rec.Payload)
		}
		return j.Add(s, rec.Payload)
	})
	if err != nil {
		return err
	}
	return j.Close()
}

// report says what is missing from the journal and why.
func (r *Reader) report() {
	if n := r.drops[losses.Retention.String()]; n > 0 {
		r.Warn("%s older than journal.max_bytes allows are gone", console.Spans(n))
	}
	lost, _ := losses.Split(r.drops) // the others are kept from a backend, not from here
	total, reasons := 0, []string{}
	for _, reason := range slices.Sorted(maps.Keys(lost)) {
		total += lost[reason]
		reasons = append(reasons, fmt.Sprintf("%s: %d", waterfall.Clean(reason), lost[reason]))
	}
	if total > 0 {
		r.Warn("%s lost (%s)", console.Spans(total), strings.Join(reasons, ", "))
	}
	if n := r.stats.CorruptBytes; n > 0 {
		r.Warn("%d bytes of %s are damaged and were passed over", n, r.Dir)
	}
	if r.omitted > 0 {
		r.Warn("%s that name no sandbox are left out: too many traces", console.Spans(r.omitted))
	}
	if r.forgotten > 0 {
		r.Warn("the oldest %d are left out: too many traces", r.forgotten)
	}
	if r.unknown > 0 {
		r.Warn("%d records of %s are not readable: written by a newer version?", r.unknown, r.Dir)
	}
}

// selected returns the stories of the journal that pass the filter, an error if there are
// none.
func (r *Reader) selected(stories []*waterfall.Story, f Filter) ([]*waterfall.Story, error) {
	if len(stories) == 0 {
		return nil, console.NothingFound("the journal %s has no spans yet: start a container through a traced runtime (shimtrace install says how), or name another journal with --journal", r.Dir)
	}
	if stories = f.stories(stories); len(stories) == 0 {
		return nil, console.NothingFound("the filters leave nothing of the journal %s; shimtrace list without filters prints what there is", r.Dir)
	}
	return stories, nil
}
