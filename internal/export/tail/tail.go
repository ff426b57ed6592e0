// Package tail decides which sandboxes' spans are shipped, once their start is over: the
// slow and failed ones, and a part of the rest (tail sampling).
//
// A decision is about a whole run of a sandbox, all its traces and all that comes later,
// so that a trace is shipped whole or not at all. What arrives before the decision stays
// in the journal; the sampler only remembers where. It does no I/O.
//
// What is known and decided is in a [Choice], of which a journal has one. Each target that
// the journal is shipped to has a [Sampler] of it, which says what that target gets, as far
// as its shipper has read.
package tail

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/names"
)

// What Options.Only may be.
const (
	All    = "all"
	Slow   = "slow"   // or failed
	Failed = "failed" // only
)

// Options say what is shipped.
type Options struct {
	// Only is All, Slow or Failed; "" is All.
	Only string
	// SlowStart is how long a start takes at least that is slow.
	SlowStart time.Duration
	// Ratio is the part of all other sandboxes that is shipped as well, 0 to 1.
	Ratio float64
}

// Bounds. A sandbox of which nothing is known after maxWait is slow. What other programs
// post is no sandbox's if no sandbox has a span in its trace after grace.
const (
	maxWait = 10 * time.Minute
	grace   = time.Minute
	maxRuns = 4096
	// maxHeld bounds the records that are held; then the oldest run is shipped.
	maxHeld   = 1024
	maxTraces = 1 << 14
)

// verdict says what becomes of a record.
type verdict int

const (
	Ship verdict = iota
	hold
	out // never shipped
)

// Key identifies a run of a sandbox: a hash of its id and its service.instance.id.
type Key uint64

// run is a run of a sandbox.
type run struct {
	key     Key
	decided bool
	in      bool // if decided
	failed  bool // so far
	since   time.Time
}

// posted is a record of other programs' spans that is held.
type posted struct {
	at     journal.Range
	since  time.Time
	traces []traceID
}

type traceID [16]byte

// Choice knows the runs of a journal's sandboxes, and decides on each once. It is safe for
// concurrent use.
type Choice struct {
	mu     sync.Mutex
	opts   Options
	runs   map[Key]*run
	order  []Key  // of runs, the oldest first
	waits  []*run // that were undecided when they were noticed, the oldest first
	traces map[traceID][]*run
	recent []traceID // of traces, the oldest first
	made   int       // decisions so far
}

// New returns a choice with earlier decisions: which runs are shipped.
func New(o Options, decided map[Key]bool) *Choice {
	c := &Choice{opts: o, runs: make(map[Key]*run), traces: make(map[traceID][]*run)}
	for key, in := range decided {
		c.add(&run{key: key, decided: true, in: in})
	}
	return c
}

// Set changes the options. What is decided stays so.
func (c *Choice) Set(o Options) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts = o
}

// Sampler returns a sampler for one target.
func (c *Choice) Sampler() *Sampler {
	return &Sampler{Choice: c, waiting: make(map[*run][]journal.Range)}
}

// Sampler says what one target gets. It is safe for concurrent use.
type Sampler struct {
	*Choice // its lock is this one's

	waiting map[*run][]journal.Range
	posted  []posted
	held    int // records of runs
	seen    int // decisions that have been followed
	ready   []journal.Range
	flying  []journal.Range // taken by Next and not Settled
	out     int             // spans kept out since Count
}

// Take says what becomes of a record. If it is held, the sampler remembers where it is.
func (s *Sampler) Take(r journal.Record, t *tracepb.TracesData, now time.Time) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.Only == "" || s.opts.Only == All {
		return Ship
	}
	v := Ship
	switch at := rangeOf(r); {
	case r.Kind == journal.KindPosted:
		p := posted{at, r.Time, tracesOf(t)}
		if v = s.judge(p, now); v == hold {
			s.posted = append(s.posted, p)
		}
	default:
		x := s.runOf(t, r.Time)
		if x == nil {
			return Ship // of no sandbox
		}
		s.note(x, t)
		switch {
		case !x.decided:
			s.waiting[x] = append(s.waiting[x], at)
			s.held++
			v = hold
		case !x.in:
			v = out
		}
	}
	if v == out {
		s.out += r.Spans
	}
	s.bound()
	return v
}

func rangeOf(r journal.Record) journal.Range {
	return journal.Range{Position: journal.Position{Segment: r.Segment, Offset: r.Offset}, End: r.End(), Spans: r.Spans}
}

// runOf returns the run that a record is of, nil if it is of none.
func (c *Choice) runOf(t *tracepb.TracesData, at time.Time) *run {
	for _, rs := range t.ResourceSpans {
		sandbox, instance := "", ""
		for _, a := range rs.GetResource().GetAttributes() {
			switch a.Key {
			case names.Sandbox:
				sandbox = a.Value.GetStringValue()
			case names.Run:
				instance = a.Value.GetStringValue()
			}
		}
		if sandbox == "" {
			continue
		}
		key := keyOf(sandbox, instance)
		if c.runs[key] == nil {
			x := &run{key: key, since: at}
			c.add(x)
			c.waits = append(c.waits, x)
		}
		return c.runs[key]
	}
	return nil
}

func keyOf(sandbox, instance string) Key {
	sum := sha256.Sum256([]byte(sandbox + "\x00" + instance))
	return Key(binary.BigEndian.Uint64(sum[:]))
}

func (c *Choice) add(x *run) {
	c.runs[x.key] = x
	c.order = append(c.order, x.key)
}

// note learns from a run's spans: which traces they are in, whether one failed, and
// whether the start is over.
func (c *Choice) note(x *run, t *tracepb.TracesData) {
	var start, deleted, asked *tracepb.Span
	for _, rs := range t.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			ours := ss.GetScope().GetName() == names.ShimScope
			for _, span := range ss.Spans {
				c.owns(x, span.TraceId)
				failed := span.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR && !isTrue(span.Attributes, names.Expected)
				x.failed = x.failed || failed
				switch {
				case !ours:
				case span.Name == names.SandboxStart:
					start = span
				case span.Name == names.ShimDelete:
					deleted = span
				case span.Name == names.SwitchedOn:
					asked = span
				}
			}
		}
	}
	switch {
	case x.decided:
	case asked != nil: // by a person
		c.settle(x, true)
	case start != nil:
		c.decide(x, start.EndTimeUnixNano-start.StartTimeUnixNano >= uint64(c.opts.SlowStart))
	case deleted != nil: // it never started
		x.failed = true
		c.decide(x, false)
	}
}

func isTrue(attributes []*commonpb.KeyValue, key string) bool {
	for _, a := range attributes {
		if a.Key == key {
			return a.Value.GetBoolValue() || a.Value.GetStringValue() == "true"
		}
	}
	return false
}

// decide decides a run whose start is over.
func (c *Choice) decide(x *run, slow bool) {
	c.settle(x, x.failed || slow && c.opts.Only == Slow || part(x.key) < c.opts.Ratio)
}

// part returns a run's place among all, from 0 to 1, the same wherever it is decided.
func part(k Key) float64 { return float64(k) / math.MaxUint64 }

// settle decides on a run.
func (c *Choice) settle(x *run, in bool) {
	x.decided, x.in = true, in
	c.made++
}

// follow lets the records of runs go that have been decided, or keeps them out.
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

// owns notes that a run has a span in a trace.
func (c *Choice) owns(x *run, id []byte) {
	if len(id) != len(traceID{}) {
		return
	}
	t := traceID(id)
	owners, known := c.traces[t]
	if slices.Contains(owners, x) {
		return
	}
	if !known {
		c.recent = append(c.recent, t)
	}
	c.traces[t] = append(owners, x)
}

func tracesOf(t *tracepb.TracesData) (ids []traceID) {
	for _, rs := range t.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, span := range ss.Spans {
				if len(span.TraceId) == len(traceID{}) && !slices.Contains(ids, traceID(span.TraceId)) {
					ids = append(ids, traceID(span.TraceId))
				}
			}
		}
	}
	return ids
}

// judge says what becomes of spans of other programs: what becomes of the sandboxes in
// their traces. A zero now is not late.
func (s *Sampler) judge(p posted, now time.Time) verdict {
	late := !now.IsZero() && now.Sub(p.since) >= grace
	v := out
	for _, id := range p.traces {
		switch owners := s.traces[id]; {
		case slices.ContainsFunc(owners, func(x *run) bool { return !x.decided }):
			return hold
		case len(owners) == 0 && !late:
			return hold
		case len(owners) == 0 || slices.ContainsFunc(owners, func(x *run) bool { return x.in }):
			v = Ship
		}
	}
	return v
}

// judgeAll judges what is held of other programs' spans again.
func (s *Sampler) judgeAll(now time.Time) {
	s.posted = slices.DeleteFunc(s.posted, func(p posted) bool {
		switch s.judge(p, now) {
		case Ship:
			s.ready = append(s.ready, p.at)
		case out:
			s.out += p.at.Spans
		default:
			return false
		}
		return true
	})
}

// Filter removes other programs' spans that are in traces of sandboxes that are kept
// out, from a record that also has others.
func (s *Sampler) Filter(t *tracepb.TracesData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range t.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			ss.Spans = slices.DeleteFunc(ss.Spans, func(span *tracepb.Span) bool {
				if len(span.TraceId) != len(traceID{}) {
					return false
				}
				owners := s.traces[traceID(span.TraceId)]
				gone := len(owners) > 0 && !slices.ContainsFunc(owners, func(x *run) bool { return x.in })
				if gone {
					s.out++
				}
				return gone
			})
		}
	}
}

// Expire decides what has waited too long.
func (s *Sampler) Expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = slices.DeleteFunc(s.waits, func(x *run) bool {
		if !x.decided && now.Sub(x.since) >= maxWait {
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
		if x := s.waits[0]; !x.decided {
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
		x := s.runs[s.order[0]]
		if !x.decided {
			s.settle(x, true)
		}
		delete(s.runs, x.key)
		s.order = s.order[1:]
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

// Made returns the number of decisions so far.
func (c *Choice) Made() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// Decided returns the decisions, for New, and their number so far.
func (c *Choice) Decided() (decided map[Key]bool, made int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	decided = make(map[Key]bool)
	for key, x := range c.runs {
		if x.decided {
			decided[key] = x.in
		}
	}
	return decided, c.made
}

// Count returns the number of spans kept out since the last call.
func (s *Sampler) Count() (spans int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	spans, s.out = s.out, 0
	return spans
}
