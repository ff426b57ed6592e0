package view

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/names"
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
	// maxFollowed bounds the bytes of records that are kept of a sandbox.
	maxFollowed = 16 << 20
)

// Follow shows a story while its spans arrive, until its sandbox is deleted or ctx ends.
// It is the one that the query means, or will mean; for "", the next that begins.
func (r *Reader) Follow(ctx context.Context, query string, f Filter, o FollowOptions) error {
	if o.Every == 0 {
		o.Every = followEvery
	}
	w := &follower{reader: r, query: query, filter: f, opts: o, said: make(map[spanID]bool)}
	from, err := w.begin()
	if err != nil {
		return err
	}
	tail := journal.Follow(r.Dir, from)
	defer tail.Close()
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	if w.story == nil {
		r.Warn("waiting for %s; Ctrl-C ends", w.awaited())
	}
	for first := true; ; first = false {
		news, err := w.take(tail)
		if err != nil {
			return err
		}
		if news || first && w.story != nil {
			over, err := w.show()
			if err != nil || over {
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

// follower is a story that is followed: it keeps the records that may have spans of it,
// and reads them again when there are more. A sandbox has few.
type follower struct {
	reader *Reader
	query  string
	filter Filter
	opts   FollowOptions

	story   *waterfall.Story // nil: not begun
	want    wanted           // by it
	records []journal.Record
	bytes   int
	full    bool
	said    map[spanID]bool // spans that have had their line
}

type spanID struct{ trace, span string }

func (w *follower) awaited() string {
	if w.query == "" {
		return "the next sandbox that starts"
	}
	return "a sandbox called " + waterfall.Clean(w.query)
}

// begin finds the story if it is there, and returns from where on the journal is read:
// all of it, or only what is new.
func (w *follower) begin() (journal.Cursor, error) {
	if w.query != "" {
		stories, err := w.reader.stories()
		if err != nil {
			return journal.Cursor{}, err
		}
		f := w.filter
		f.Min = 0
		if found := find(f.stories(stories), w.query); len(found) > 0 {
			w.story = found[len(found)-1]
			w.want = wantedBy(w.story)
			return journal.Cursor{}, nil
		}
	}
	// Read over what is there.
	debug.SetGCPercent(readGC)
	tail := journal.Follow(w.reader.Dir, journal.Cursor{})
	defer tail.Close()
	for {
		if _, err := tail.Next(); errors.Is(err, io.EOF) {
			return tail.Cursor(), nil
		} else if err != nil {
			return journal.Cursor{}, whoMay(err)
		}
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
		if rec.Kind != journal.KindTraces && rec.Kind != journal.KindPosted || w.story != nil && !w.want.has(rec) {
			continue
		}
		if w.bytes += len(rec.Payload); w.bytes > maxFollowed {
			if w.story == nil { // of many sandboxes: the older half goes
				w.drop(len(w.records) / 2)
			} else if !w.full {
				w.full = true
				w.reader.Warn("there are too many spans to follow; shimtrace show shows what fits")
			}
			if w.full {
				continue
			}
		}
		rec.Payload = bytes.Clone(rec.Payload) // valid until the next call
		w.records = append(w.records, rec)
		news = true
	}
}

func (w *follower) drop(n int) {
	for _, rec := range w.records[:n] {
		w.bytes -= len(rec.Payload)
	}
	w.records = append([]journal.Record(nil), w.records[n:]...)
}

// show shows the story as far as it has arrived, and reports whether it is over.
func (w *follower) show() (over bool, err error) {
	index := waterfall.NewIndex()
	for _, rec := range w.records {
		w.reader.readable(addToIndex(index, rec))
	}
	story := w.find(index.Stories())
	if story == nil {
		return false, nil
	}
	if w.story == nil {
		w.want = wantedBy(story)
		w.narrow()
	}
	w.story = story
	b := waterfall.NewBuilder(story, waterfall.Limits{Bytes: maxTree}, true)
	for _, rec := range w.records {
		if w.want.has(rec) {
			w.reader.readable(addTo(b, rec))
		}
	}
	tree := b.Tree()
	over = ended(tree)
	if w.opts.Height == 0 {
		return over, w.lines(story, tree)
	}
	return over, w.screen(story, tree, over)
}

// find returns the story among those of the records.
func (w *follower) find(stories []*waterfall.Story) *waterfall.Story {
	if w.story != nil {
		for _, s := range stories {
			if s.Sandbox == w.story.Sandbox && (s.Trace == w.story.Trace || w.story.Sandbox != "") {
				return s
			}
		}
		return nil
	}
	f := w.filter
	f.Min, f.Errors = 0, false // of spans; failures may yet come
	stories = f.stories(stories)
	if len(stories) == 0 {
		return nil
	}
	if w.query == "" {
		return stories[0]
	}
	if found := find(stories, w.query); len(found) > 0 {
		return found[len(found)-1]
	}
	return nil
}

// narrow lets go of other sandboxes' records.
func (w *follower) narrow() {
	var own []journal.Record
	w.bytes = 0
	for _, rec := range w.records {
		if w.want.has(rec) {
			own = append(own, rec)
			w.bytes += len(rec.Payload)
		}
	}
	w.records = own
}

// ended reports whether the sandbox has been deleted.
func ended(t *waterfall.Tree) bool {
	for n := range t.All() {
		if n.Maker() == waterfall.ByShim && n.Name() == names.ShimDelete {
			return true
		}
	}
	return false
}

// lines writes a line for each span that has not had one.
func (w *follower) lines(s *waterfall.Story, t *waterfall.Tree) error {
	keep := w.filter.spans(s)
	var out strings.Builder
	for n := range t.All() {
		id := spanID{n.Trace().String(), n.ID.String()}
		if n.Span == nil || w.said[id] {
			continue
		}
		w.said[id] = true
		if keep == nil || keep(n) {
			out.WriteString(spanLine(n, s))
		}
	}
	_, err := io.WriteString(w.reader.Out, out.String())
	return err
}

// spanLine is a span in a line: when it began since the story did, how long it took, its
// name, what it is about, its failure.
func spanLine(n *waterfall.Node, s *waterfall.Story) string {
	began := "?"
	if n.Start() != 0 {
		began = waterfall.Duration(time.Duration(n.Start() - s.Interval().From))
	}
	line := fmt.Sprintf("%8s %8s  %s", began, waterfall.Duration(n.Interval().Length()), waterfall.Clean(n.Title()))
	if about := n.About(s); about != "" {
		line += " " + waterfall.Clean(about)
	}
	if n.Span.Failed {
		line += "  ✗ " + waterfall.Clean(strings.TrimSpace(n.Span.Code()+" "+n.Span.Message()))
	}
	return line + "\n"
}

// screen draws the picture over the one before, as much of it as fits; the last one
// whole.
func (w *follower) screen(s *waterfall.Story, t *waterfall.Tree, over bool) error {
	e := explain.Explain(s, t, nil)
	o := w.opts.Draw
	o.Keep, o.Head, o.Critical = w.filter.spans(s), e.Head(), e.Critical()
	var picture strings.Builder
	if err := waterfall.Render(&picture, s, t, o); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimRight(picture.String(), "\n"), "\n")
	if !over {
		lines = fitHeight(lines, w.opts.Height-1)
	}
	// To the first line; each line to its end; all below.
	_, err := io.WriteString(w.reader.Out, "\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J")
	return err
}

// fitHeight leaves out lines in the middle: the first say what it is, and the last are
// the latest.
func fitHeight(lines []string, height int) []string {
	const first = 8
	if len(lines) <= height {
		return lines
	}
	head := min(first, height/2)
	tail := max(0, height-head-1)
	fitted := append([]string(nil), lines[:head]...)
	fitted = append(fitted, fmt.Sprintf("… %d lines", len(lines)-head-tail))
	return append(fitted, lines[len(lines)-tail:]...)
}
