package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/export/journal"
	"github.com/shimtrace/shimtrace/waterfall"
	"github.com/urfave/cli/v3"
)

func journalFlag() cli.Flag {
	return &cli.StringFlag{Name: "journal", Usage: "read the journal in `DIR` (default: journal.dir of the configuration)"}
}

// journalDir returns the journal that a command is about.
func (h *host) journalDir(c *cli.Command) string {
	if dir := c.String("journal"); dir != "" {
		return dir
	}
	cfg, err := config.Load("", h.getenv)
	if err != nil {
		h.warn("%v; going on with the defaults", err)
	}
	return cfg.Journal.Dir
}

// reading is one journal, and what was noticed while it was read.
type reading struct {
	dir     string
	stats   journal.Stats
	drops   map[string]int // spans lost, by reason
	unknown int            // records that are whole but not readable
}

// scan calls fn with the spans of each record, the oldest first.
func (r *reading) scan(fn func([]*tracepb.ResourceSpans)) error {
	r.drops, r.unknown = make(map[string]int), 0
	var err error
	r.stats, err = journal.Scan(r.dir, func(rec journal.Record) error {
		switch rec.Kind {
		case journal.KindTraces:
			traces, err := rec.Traces()
			if err != nil {
				r.unknown++
				return nil
			}
			fn(traces.GetResourceSpans())
		case journal.KindDrops, journal.KindCarried:
			drops, err := rec.Drops()
			if err != nil {
				r.unknown++
				return nil
			}
			for reason, spans := range drops {
				r.drops[reason] += spans
			}
		}
		return nil
	})
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run it as root, to whom the journal belongs", err)
	}
	return err
}

// stories reads which stories the journal has, the oldest first.
func (r *reading) stories() ([]*waterfall.Story, error) {
	index := waterfall.NewIndex()
	err := r.scan(index.Add)
	return index.Stories(), err
}

// spans reads the story's spans, at most limit; more is how many there are beyond.
func (r *reading) spans(s *waterfall.Story, limit int) (spans []*tracepb.ResourceSpans, more int, err error) {
	n := 0
	err = r.scan(func(all []*tracepb.ResourceSpans) {
		for _, rs := range s.Select(all) {
			before := n
			for _, ss := range rs.GetScopeSpans() {
				keep := min(len(ss.Spans), limit-n)
				more += len(ss.Spans) - keep
				ss.Spans, n = ss.Spans[:keep], n+keep
			}
			if n > before {
				spans = append(spans, rs)
			}
		}
	})
	return spans, more, err
}

// report says on stderr what is missing from the journal and why.
func (r *reading) report(h *host) {
	lost := maps.Clone(r.drops)
	if n := lost[journal.ReasonRetention]; n > 0 {
		h.warn("%s older than journal.max_bytes allows are gone", spanCount(n))
		delete(lost, journal.ReasonRetention)
	}
	total, reasons := 0, []string{}
	for _, reason := range slices.Sorted(maps.Keys(lost)) {
		total += lost[reason]
		reasons = append(reasons, fmt.Sprintf("%s: %d", waterfall.Clean(reason), lost[reason]))
	}
	if total > 0 {
		h.warn("%s lost (%s)", spanCount(total), strings.Join(reasons, ", "))
	}
	if n := r.stats.CorruptBytes; n > 0 {
		h.warn("%d bytes of %s are damaged and were passed over", n, r.dir)
	}
	if r.unknown > 0 {
		h.warn("%d records of %s are not readable: written by a newer version?", r.unknown, r.dir)
	}
}

func spanCount(n int) string {
	if n == 1 {
		return "1 span"
	}
	return fmt.Sprintf("%d spans", n)
}

// empty is the error for a journal without spans.
func (r *reading) empty() error {
	return nothingFound("the journal %s has no spans yet: start a container through a traced runtime (shimtrace install says how), or name another journal with --journal", r.dir)
}
