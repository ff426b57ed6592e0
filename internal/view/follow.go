package view

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime/debug"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// FollowOptions say how Follow shows what arrives.
type FollowOptions struct {
	Draw waterfall.Options
	// Height is the terminal's in lines. Without one (0), each span is a line of its
	// own as it arrives.
	Height int
	// Every is how often the journal is looked at; 0 is followEvery.
	Every time.Duration
}

const (
	// followEvery is short for a person, and long for a processor: looking costs two
	// system calls.
	followEvery = 200 * time.Millisecond
	// While a story is awaited, records that may turn out to be its are kept: at most
	// maxAwaited bytes, and of those that are there at first only the ones of the last
	// startTime.
	maxAwaited = 16 << 20
	startTime  = 5 * time.Minute
	// maxAside bounds the bytes of other programs' spans that are kept once the story is
	// there.
	maxAside = 4 << 20
)

// Follow shows a story while its spans arrive, until its sandbox is deleted or ctx ends.
// It is the story that the query means; if there is none yet, or it has ended, the next one
// that the query will mean; for "", the next that begins. A record is read when it arrives, and
// not again for each later one.
func (r *Reader) Follow(ctx context.Context, query string, f Filter, o FollowOptions) error {
	if o.Every == 0 {
		o.Every = followEvery
	}
	debug.SetGCPercent(readGC)
	w := &follower{reader: r, query: query, filter: f, opts: o, said: make(map[*waterfall.Node]bool)}
	tail, err := w.begin()
	if err != nil {
		return err
	}
	defer tail.Close()
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for {
		news, err := w.take(tail)
		if err != nil {
			return err
		}
		if news {
			if over, err := w.show(); err != nil || over {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// follower awaits a story, and then follows it.
type follower struct {
	reader *Reader
	query  string
	filter Filter
	opts   FollowOptions

	// While the story is awaited: what may turn out to be its, and what is new.
	awaited []journal.Record
	bytes   int
	news    *waterfall.Index
	begun   map[string]bool  // sandboxes
	past    *waterfall.Story // the story that the query meant, which has ended

	// Once it is there.
	story *waterfall.Story
	want  wanted // by it
	index *waterfall.Index
	tree  *waterfall.Builder
	full  bool
	said  map[*waterfall.Node]bool // spans that have had their line
}

// begin reads what is in the journal. The tail that it returns is at the journal's beginning if
// the story is there, else behind what has been read: no record is missed in between.
func (w *follower) begin() (*journal.Follower, error) {
	tail := journal.Follow(w.reader.Dir, journal.Cursor{})
	index, since := waterfall.NewIndex(), time.Now().Add(-startTime)
	for {
		rec, err := tail.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			tail.Close()
			return nil, whoMay(err)
		}
		if !hasSpans(rec) {
			continue
		}
		if w.query != "" {
			w.reader.readable(addToIndex(index, rec))
		}
		if rec.Time.After(since) {
			w.keep(rec)
		}
	}
	switch s := w.meant(index.Stories()); {
	case w.query == "":
		w.reader.Warn("waiting for the next sandbox that starts; Ctrl-C ends")
	case s == nil:
		w.reader.Warn("waiting for a sandbox called %s; Ctrl-C ends", waterfall.Clean(w.query))
	case s.Ended():
		w.past = s
		w.reader.Warn("%[1]s ended at %[2]s: waiting for the next one called so; Ctrl-C ends, and shimtrace show %[1]s shows it", waterfall.Clean(w.query), s.End.Local().Format(time.TimeOnly))
	default:
		tail.Close()
		tail = journal.Follow(w.reader.Dir, journal.Cursor{})
		w.awaited = nil
		w.open(s)
	}
	return tail, nil
}

func hasSpans(rec journal.Record) bool {
	return rec.Kind == journal.KindTraces || rec.Kind == journal.KindPosted
}

// keep keeps a record while the story is awaited. At the bound the older half goes.
func (w *follower) keep(rec journal.Record) {
	rec.Payload = bytes.Clone(rec.Payload) // valid until the next call
	w.awaited = append(w.awaited, rec)
	if w.bytes += len(rec.Payload); w.bytes <= maxAwaited {
		return
	}
	half := (len(w.awaited) + 1) / 2
	for _, rec := range w.awaited[:half] {
		w.bytes -= len(rec.Payload)
	}
	w.awaited = slices.Clone(w.awaited[half:])
}

// meant returns the story that is followed among those of an index; nil if it is not
// there.
func (w *follower) meant(stories []*waterfall.Story) *waterfall.Story {
	f := w.filter
	f.Min, f.Errors = 0, false // of spans; failures may yet come
	stories = f.stories(stories)
	if w.query != "" {
		stories = find(stories, w.query)
		slices.Reverse(stories) // the latest
	}
	for _, s := range stories {
		if w.query == "" && w.begun[s.Sandbox] || w.query != "" && !sameRun(s, w.past) {
			return s
		}
	}
	return nil
}

// sameRun reports whether two views are of one run of a sandbox.
func sameRun(s, earlier *waterfall.Story) bool {
	return earlier != nil && s.Sandbox == earlier.Sandbox && slices.Contains(s.Traces, earlier.Trace)
}

// maxBegun bounds the sandboxes that are known to have begun.
const maxBegun = 1 << 12

// noteBegun remembers which sandboxes have begun: what a filter asks for may arrive later.
func (w *follower) noteBegun(stories []*waterfall.Story) {
	if w.begun == nil || len(w.begun) > maxBegun {
		w.begun = make(map[string]bool)
	}
	for _, s := range stories {
		if s.Begins() {
			w.begun[s.Sandbox] = true
		}
	}
}

// open begins to follow a story.
func (w *follower) open(s *waterfall.Story) {
	w.story, w.want, w.news = s, wantedBy(s), nil
	w.index = waterfall.NewIndex()
	w.tree = waterfall.NewBuilder(s, waterfall.Limits{Bytes: maxTree, Aside: maxAside}, true)
	for _, rec := range w.awaited {
		w.add(rec)
	}
	w.awaited = nil
}

// add adds a record to the story, if it may have spans of it.
func (w *follower) add(rec journal.Record) {
	if w.want.has(rec) {
		w.reader.readable(addToIndex(w.index, rec))
		w.reader.readable(addTo(w.tree, rec))
	}
}

// take takes the records that have arrived, and reports whether any may be the story's.
func (w *follower) take(tail *journal.Follower) (news bool, err error) {
	for {
		rec, err := tail.Next()
		if errors.Is(err, io.EOF) {
			return news, nil
		}
		if err != nil {
			return news, err
		}
		switch {
		case !hasSpans(rec):
			continue
		case w.story != nil:
			w.add(rec)
			news = news || w.want.has(rec)
		default:
			if w.news == nil {
				w.news = waterfall.NewIndex()
			}
			w.reader.readable(addToIndex(w.news, rec))
			w.keep(rec)
			news = true
		}
	}
}

// show shows the story as far as it has arrived, and reports whether it is over.
func (w *follower) show() (over bool, err error) {
	if w.story == nil {
		stories := w.news.Stories()
		w.noteBegun(stories)
		s := w.meant(stories)
		w.news = nil
		if s == nil {
			return false, nil
		}
		w.open(s)
	}
	for _, s := range w.index.Snapshot().Stories() {
		if sameRun(s, w.story) {
			w.story, w.want = s, wantedBy(s)
			break
		}
	}
	w.tree.Update(w.story)
	tree := w.tree.Tree()
	if tree.Omitted > 0 && !w.full {
		w.full = true
		w.reader.Warn("there are too many spans to follow; shimtrace show shows what fits")
	}
	over = w.story.Ended()
	if w.opts.Height == 0 {
		return over, w.lines(w.story, tree)
	}
	return over, w.screen(w.story, tree, over)
}
