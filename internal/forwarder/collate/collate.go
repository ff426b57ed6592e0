package collate

import (
	"crypto/rand"
	"math"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
)

// Collator makes a tree of the spans of one sandbox's runtime, and below it a tree of its
// agent's. It is safe for concurrent use; reporting to its Calls never waits for spans.
type Collator struct {
	*calls.Calls
	opts Options

	mu      sync.Mutex
	runtime source
	agent   source
	traces  recent.Map[trace.TraceID, guestTrace]
	secret  [16]byte // see isolatedTrace
	stats   Stats
}

// remembered is how many sent spans of a source are remembered for late children and
// duplicates, at about 150 bytes each.
const remembered = 4096

// New returns the Collator of a sandbox.
func New(opts Options) *Collator {
	opts.defaults()
	c := &Collator{
		Calls:  calls.New(opts.Options),
		opts:   opts,
		traces: recent.New[trace.TraceID, guestTrace](maxTraces),
	}
	rand.Read(c.secret[:])
	c.runtime = c.source(newBatch(&c.opts, opts.Runtime, names.RuntimeScope, names.LostRuntimeSpan))
	c.agent = c.source(newBatch(&c.opts, opts.Resource, names.AgentScope, names.LostAgentSpan))
	c.runtime.below, c.agent.above = &c.agent, &c.runtime
	return c
}

// SetBounds sets how long spans wait, and how many of them may: o's Hold, MaxSpans and
// MaxBytes.
func (c *Collator) SetBounds(o Options) {
	o.defaults()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts.Hold, c.opts.MaxSpans, c.opts.MaxBytes = o.Hold, o.MaxSpans, o.MaxBytes
	c.bound()
}

// source has the spans that the runtime or the agent has sent, and their tree.
//
// The runtime is on the host and has traces of its own: one for the sandbox's life (the Go
// runtime), or several (runtime-rs). Its spans for calls of the shim go below these calls; what
// is below them follows, requests to the agent included.
//
// The agent is in the VM. Its requests name the caller's span as their parent, or none. What it
// does on its own threads are roots that begin within a request, which usually arrives later.
type source struct {
	*Collator
	// The agent's spans may be below the runtime's: the agent's source has the runtime's as
	// above, and the runtime's has the agent's as below. Nil: none.
	above, below *source

	waiting  waiting
	sent     recent.Map[trace.SpanID, sent]
	missing  map[trace.SpanID]*missing
	requests requests // only the agent's
	out      batch
	stack    []*node // for send
}

// sent is what is remembered of a sent span.
type sent struct {
	calls.Cause
	parent trace.SpanID
	end    int64 // on the host's clock
	off    bool  // not recorded, though spans below it may be
}

func (c *Collator) source(out batch) source {
	return source{
		Collator: c,
		waiting:  newWaiting(),
		sent:     recent.New[trace.SpanID, sent](remembered),
		missing:  make(map[trace.SpanID]*missing),
		out:      out,
	}
}

// Add takes a span of the agent and owns it from then on. Spans must be added in the order of
// their arrival.
func (c *Collator) Add(s *span.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.agent.take(calls.AgentSpan(s)); n != nil {
		c.agent.begins(n)
		c.agent.add(n)
		c.bound()
	}
}

// AddRuntime takes a span of the sandbox's runtime and owns it from then on. Spans must be
// added in the order of their arrival. The agent's spans that name one as their parent follow
// it, whichever arrives first.
func (c *Collator) AddRuntime(s *span.Span) {
	span := calls.RuntimeSpan(s)
	c.Learn(&span)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.runtime.take(span); n != nil {
		c.runtime.learnRoot(n)
		c.runtime.add(n)
		c.bound()
	}
}

// take registers a span as waiting. It returns nil if the span is dropped.
func (s *source) take(span calls.Span) *node {
	s.stats.Added++
	s.opts.Arrived()
	id := trace.SpanID(span.SpanID)
	if _, taken := s.Knows(id); taken || s.above != nil && s.above.missing[id] != nil {
		s.drop(Collision)
		return nil
	}
	if s.has(id) {
		s.drop(Duplicate)
		return nil
	}
	if span.ParentID == span.SpanID {
		s.stats.Cut++
		span.ParentID = [8]byte{}
	}
	span.Came = s.now()
	return s.waiting.put(span)
}

// maxThreads bounds the spans of threads that wait for their request.
const maxThreads = 256

// begins registers a request, and settles the waiting threads that began within it.
func (s *source) begins(n *node) {
	if !s.HoldsThreads(&n.Span) {
		return
	}
	in := s.requests.add(n)
	for top := range s.waiting.undecided {
		if in.holds(top) {
			s.settle(top, nil)
		}
	}
}

// learnRoot takes a call's parent as the runtime's root, unless that parent is known as another
// span: the Go runtime puts a pod's later creates below its first.
func (s *source) learnRoot(n *node) {
	parent := trace.SpanID(n.ParentID)
	if !n.IsCall() || !parent.IsValid() || s.IsRoot(parent) || s.has(parent) {
		return
	}
	s.LearnRoot(parent)
	if !s.opts.Isolated {
		s.wake(parent, nil)
	}
}

// has reports whether a span has arrived.
func (c *Collator) has(id trace.SpanID) bool {
	return c.runtime.sent.Has(id) || c.agent.sent.Has(id) || c.runtime.waiting.arrived(id) || c.agent.waiting.arrived(id)
}

// bound keeps the waiting spans within their limits.
func (c *Collator) bound() {
	r, a := &c.runtime.waiting, &c.agent.waiting
	for r.spans+a.spans > c.opts.MaxSpans || r.bytes+a.bytes > c.opts.MaxBytes {
		if top := r.oldest; top != nil && (a.oldest == nil || top.since <= a.oldest.since) {
			c.runtime.force(top, nil)
		} else {
			c.agent.force(a.oldest, nil)
		}
	}
}

// Tick places the spans that have waited for Options.Hold, and sends all placed ones. Call it
// at least once a second while spans arrive or wait.
func (c *Collator) Tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleUntil(c.opts.Now().Add(-c.opts.Hold))
	c.flush()
}

// AgentEnded reports that the agent sends no more spans: its connection or its VM is gone. If
// the runtime has sent none either, nothing more comes at all.
func (c *Collator) AgentEnded() {
	if !c.HasRuntime() {
		c.Ended()
	}
}

// Ended reports that no more spans come. It sends all waiting spans, and placeholders for
// missing parents. Spans added later are placed as before.
func (c *Collator) Ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleUntil(time.Unix(0, math.MaxInt64))
	c.runtime.expect()
	c.runtime.placeholders()
	c.agent.placeholders()
	c.flush()
}

// settleUntil places the spans that have waited since due.
func (c *Collator) settleUntil(due time.Time) {
	for n := range c.runtime.waiting.undecided {
		c.runtime.settle(n, nil) // its call may have been answered
	}
	for _, s := range []*source{&c.runtime, &c.agent} {
		for top := s.waiting.oldest; top != nil && top.since <= due.UnixNano(); top = s.waiting.oldest {
			s.force(top, nil)
		}
	}
}

// Held returns how many spans are waiting.
func (c *Collator) Held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runtime.waiting.spans + c.agent.waiting.spans
}

// Stats returns the counts so far.
func (c *Collator) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, r, a := c.stats, &c.runtime.waiting, &c.agent.waiting
	s.Held, s.HeldBytes, s.Awaited = r.spans+a.spans, r.bytes+a.bytes, c.awaited()
	return s
}

func (c *Collator) drop(reason Reason) {
	c.stats.Dropped++
	c.opts.Drop(reason, 1)
}

func (c *Collator) now() int64 { return c.opts.Now().UnixNano() }
