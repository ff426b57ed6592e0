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
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"strings"
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
	// SlowStart is the least duration of a slow start.
	SlowStart time.Duration
	// Ratio is the part of all other sandboxes that is shipped as well, 0 to 1.
	Ratio float64
}

// Bounds. A sandbox that has not started after maxWait is slow. grace is how long a pod whose
// sandbox has started is given for its first container, and a sandbox whose beginning is not
// known for that beginning to arrive. What other programs post is no sandbox's if after grace no
// sandbox has a span in its trace, nor any sandbox that was starting meanwhile.
const (
	maxWait = 10 * time.Minute
	grace   = time.Minute
	maxRuns = 4096
	// maxHeld bounds the records that are held; then the oldest run is shipped.
	maxHeld   = 1024
	maxTraces = 1 << 14
)

// Verdict says what becomes of a record.
type Verdict int

const (
	Ship Verdict = iota
	Hold
	Out // never shipped
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

	ours      bool      // it has spans of the shim
	begun     bool      // its beginning is known
	container bool      // a container has been started, beside the sandbox's own
	started   time.Time // when its sandbox's start was known to be over, if it was
	slow      bool      // its start was slow
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

// runOf returns the run whose spans a record has, which may be new; nil if it has no run's.
func (c *Choice) runOf(t *tracepb.TracesData, at time.Time) *run {
	for _, rs := range t.ResourceSpans {
		attributes := rs.GetResource().GetAttributes()
		sandbox := text(attributes, names.Sandbox)
		if sandbox == "" {
			continue
		}
		key := keyOf(sandbox, text(attributes, names.Run))
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
// whether the start is over. A pod's start is over when its first container has started, or
// failed to.
func (c *Choice) note(x *run, t *tracepb.TracesData, at time.Time) {
	var asked, deleted, pod bool
	for _, rs := range t.ResourceSpans {
		sandbox := text(rs.GetResource().GetAttributes(), names.Sandbox)
		pod = pod || text(rs.GetResource().GetAttributes(), names.Pod) != ""
		for _, ss := range rs.ScopeSpans {
			scope := ss.GetScope().GetName()
			ours := scope == names.ShimScope || scope == names.CallScope
			x.ours = x.ours || ours
			for _, span := range ss.Spans {
				c.owns(x, span.TraceId)
				x.failed = x.failed || span.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR && !isTrue(span.Attributes, names.Expected)
				if !ours {
					continue
				}
				about := text(span.Attributes, names.Container)
				own := about == "" || about == sandbox
				method := span.Name[strings.LastIndexByte(span.Name, '/')+1:]
				switch {
				case span.Name == names.SandboxStart:
					x.begun, x.started = true, at
					x.slow = x.slow || span.EndTimeUnixNano-span.StartTimeUnixNano >= uint64(c.opts.SlowStart)
				case span.Name == names.SwitchedOn:
					asked = true
				case own && span.Name == names.ShimDelete:
					deleted = true
				case own && (span.Name == names.ShimStart || method == "Create"):
					x.begun = true
				case !own && method == "Start" && text(span.Attributes, names.Exec) == "":
					x.container = true
				}
			}
		}
	}
	switch {
	case x.decided:
	case asked: // by a person
		c.settle(x, true)
	case deleted && !x.begun:
		c.settleUnknown(x)
	case deleted && x.started.IsZero(): // it never started
		x.failed = true
		c.decide(x)
	case !x.started.IsZero() && (deleted || x.failed || x.container || !pod):
		c.decide(x)
	}
}

func text(attributes []*commonpb.KeyValue, key string) string {
	for _, a := range attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
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
func (c *Choice) decide(x *run) {
	c.settle(x, x.failed || x.slow && c.opts.Only == Slow || part(x.key) < c.opts.Ratio)
}

// settleUnknown decides a run that began before anything that is remembered: it was kept
// out, or else it would be known. Its end alone would be half a trace.
func (c *Choice) settleUnknown(x *run) { c.settle(x, part(x.key) < c.opts.Ratio) }

// Know learns which traces a decided run's spans are in, from a record that an earlier
// process has read.
func (c *Choice) Know(t *tracepb.TracesData) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range t.ResourceSpans {
		attributes := rs.GetResource().GetAttributes()
		x := c.runs[keyOf(text(attributes, names.Sandbox), text(attributes, names.Run))]
		if x == nil || !x.decided {
			continue
		}
		for _, ss := range rs.ScopeSpans {
			for _, span := range ss.Spans {
				c.owns(x, span.TraceId)
			}
		}
	}
}

// part returns a number from 0 to 1 for a run. Runs are spread evenly over it, and each has the
// same number wherever it is decided.
func part(k Key) float64 { return float64(k) / math.MaxUint64 }

// settle decides on a run.
func (c *Choice) settle(x *run, in bool) {
	x.decided, x.in = true, in
	c.made++
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
