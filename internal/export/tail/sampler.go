package tail

import (
	"cmp"
	"slices"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// Sampler says what one target gets. It is safe for concurrent use.
type Sampler struct {
	*Choice // whose lock guards the fields below too

	waiting map[*run][]journal.Range
	posted  []posted
	held    int // records of runs
	seen    int // decisions that have been followed
	ready   []journal.Range
	flying  []journal.Range // taken by Next and not Settled
	out     int             // spans kept out since Count
}

// Take says what becomes of a record. If it is held, the sampler remembers where it is.
func (s *Sampler) Take(r journal.Record, t *tracepb.TracesData, now time.Time) Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.Only == "" || s.opts.Only == All {
		return Ship
	}
	v := Ship
	switch at := rangeOf(r); {
	case r.Kind == journal.KindPosted:
		p := posted{at, r.Time, tracesOf(t)}
		if v = s.judge(p, now); v == Hold {
			s.posted = append(s.posted, p)
		}
	default:
		x := s.runOf(t, r.Time)
		if x == nil {
			return Ship // of no sandbox
		}
		s.note(x, t, r.Time)
		switch {
		case !x.decided:
			s.waiting[x] = append(s.waiting[x], at)
			s.held++
			v = Hold
		case !x.in:
			v = Out
		}
	}
	if v == Out {
		s.out += r.Spans
	}
	s.bound()
	return v
}

func rangeOf(r journal.Record) journal.Range {
	return journal.Range{Position: journal.Position{Segment: r.Segment, Offset: r.Offset}, End: r.End(), Spans: r.Spans}
}

// follow lets the records of runs that have been decided go, or keeps them out.
func (s *Sampler) follow() {
	if s.seen == s.made {
		return
	}
	s.seen = s.made
	var in []journal.Range
	for x, held := range s.waiting {
		if !x.decided {
			continue
		}
		if x.in {
			in = append(in, held...)
		} else {
			for _, at := range held {
				s.out += at.Spans
			}
		}
		s.held -= len(held)
		delete(s.waiting, x)
	}
	slices.SortFunc(in, byPosition)
	s.ready = append(s.ready, in...)
	s.judgeAll(time.Time{})
}

// judge says what becomes of other programs' spans: the same as of the sandboxes in their
// traces. With a zero now, it is not late for any.
func (s *Sampler) judge(p posted, now time.Time) Verdict {
	late := !now.IsZero() && now.Sub(p.since) >= grace && !s.startsSince(p.since)
	v := Out
	for _, id := range p.traces {
		switch owners := s.traces[id]; {
		case slices.ContainsFunc(owners, func(x *run) bool { return !x.decided }):
			return Hold
		case len(owners) == 0 && !late:
			return Hold
		case len(owners) == 0 || slices.ContainsFunc(owners, func(x *run) bool { return x.in }):
			v = Ship
		}
	}
	return v
}

// startsSince reports whether a sandbox is still starting that began before something was
// posted, or within grace after that. The spans of its calls, which show that the trace is the
// sandbox's, come only when the calls end.
func (c *Choice) startsSince(posted time.Time) bool {
	return slices.ContainsFunc(c.waits, func(x *run) bool { return !x.decided && x.since.Before(posted.Add(grace)) })
}

// judgeAll judges the held spans of other programs again.
func (s *Sampler) judgeAll(now time.Time) {
	s.posted = slices.DeleteFunc(s.posted, func(p posted) bool {
		switch s.judge(p, now) {
		case Ship:
			s.ready = append(s.ready, p.at)
		case Out:
			s.out += p.at.Spans
		default:
			return false
		}
		return true
	})
}

// Filter removes other programs' spans that are in traces of sandboxes that are kept
// out, from a record that also has others, and counts them.
func (s *Sampler) Filter(t *tracepb.TracesData) {
	n := s.Sift(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out += n
}

// Sift is Filter for a record that is read again. It does not count the spans that it removes,
// but returns their number.
func (c *Choice) Sift(t *tracepb.TracesData) (out int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range t.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			ss.Spans = slices.DeleteFunc(ss.Spans, func(span *tracepb.Span) bool {
				if len(span.TraceId) != len(traceID{}) {
					return false
				}
				owners := c.traces[traceID(span.TraceId)]
				gone := len(owners) > 0 && !slices.ContainsFunc(owners, func(x *run) bool { return x.in })
				if gone {
					out++
				}
				return gone
			})
		}
	}
	return out
}

// Expire decides what has waited too long.
func (s *Sampler) Expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = slices.DeleteFunc(s.waits, func(x *run) bool {
		switch waited := now.Sub(x.since); {
		case x.decided:
		case !x.started.IsZero() && now.Sub(x.started) >= grace:
			s.decide(x)
		case x.ours && !x.begun && waited >= grace:
			s.settleUnknown(x)
		case waited >= maxWait:
			s.settle(x, x.failed || s.opts.Only == Slow)
		}
		return x.decided
	})
	s.follow()
	s.judgeAll(now)
}

// bound keeps the sampler within its bounds.
func (s *Sampler) bound() {
	for s.held+len(s.posted) > maxHeld && len(s.waits) > 0 {
		switch x := s.waits[0]; {
		case x.decided:
		case x.ours && !x.begun:
			s.settleUnknown(x)
		default:
			s.settle(x, true)
		}
		s.waits = s.waits[1:]
		s.follow()
	}
	if len(s.posted) > maxHeld/2 {
		for _, p := range s.posted[:maxHeld/4] {
			s.ready = append(s.ready, p.at)
		}
		s.posted = slices.Delete(s.posted, 0, maxHeld/4)
	}
	for len(s.order) > maxRuns {
		// A forgotten run counts as kept out, so the oldest one that was kept out goes first.
		i := max(0, slices.IndexFunc(s.order, func(k Key) bool { return s.runs[k].decided && !s.runs[k].in }))
		x := s.runs[s.order[i]]
		if !x.decided {
			s.settle(x, true)
		}
		delete(s.runs, x.key)
		s.order = slices.Delete(s.order, i, i+1)
	}
	for len(s.recent) > maxTraces {
		delete(s.traces, s.recent[0])
		s.recent = s.recent[1:]
	}
}

// Next returns the next record that may be shipped now and was held. It is held until
// Settled is called.
func (s *Sampler) Next() (at journal.Range, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow()
	if len(s.ready) == 0 {
		return at, false
	}
	at, s.ready = s.ready[0], s.ready[1:]
	s.flying = append(s.flying, at)
	return at, true
}

// Settled says that what Next has returned is shipped, lost or set aside.
func (s *Sampler) Settled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying = nil
}

// Restore holds a record again that an earlier sampler held, or lets it go.
func (s *Sampler) Restore(r journal.Record, t *tracepb.TracesData, now time.Time) {
	if s.Take(r, t, now) == Ship {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ready = append(s.ready, rangeOf(r))
	}
}

// Waits reports whether anything waits for a decision.
func (s *Sampler) Waits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held+len(s.posted)+len(s.ready) > 0
}

// Held returns all records that are held.
func (s *Sampler) Held() (all []journal.Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all = append(append(all, s.flying...), s.ready...)
	for _, held := range s.waiting {
		all = append(all, held...)
	}
	for _, p := range s.posted {
		all = append(all, p.at)
	}
	slices.SortFunc(all, byPosition)
	return all
}

func byPosition(a, b journal.Range) int {
	return cmp.Or(cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Offset, b.Offset))
}

// Count returns the number of spans kept out since the last call.
func (s *Sampler) Count() (spans int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	spans, s.out = s.out, 0
	return spans
}
