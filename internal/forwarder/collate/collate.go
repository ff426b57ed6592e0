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

	mu       sync.Mutex
	runtime  *runtime
	agent    *agent
	traces   recent.Map[trace.TraceID, guestTrace]
	isolated isolated
	stats    Stats
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
	rand.Read(c.isolated.secret[:])
	c.runtime = &runtime{
		source: newSource(c, calls.RuntimeSpan, newBatch(&c.opts, opts.Runtime, names.RuntimeScope, names.LostRuntimeSpan)),
		roots:  recent.New[trace.SpanID, struct{}](maxRoots),
	}
	c.agent = &agent{source: newSource(c, calls.AgentSpan, newBatch(&c.opts, opts.Resource, names.AgentScope, names.LostAgentSpan))}
	c.runtime.origin, c.agent.origin = c.runtime, c.agent
	c.runtime.below, c.agent.above = c.agent.source, c.runtime.source
	return c
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
		if n.IsCall() {
			c.runtime.learnRoot(n)
		}
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

// add places a span, or lets it wait.
func (s *source) add(n *node) {
	if cause, expected := s.expected(n.id); expected {
		s.arrived(n, cause)
	} else {
		s.settle(n)
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
		if top := r.front(); top != nil && (a.front() == nil || top.since <= a.front().since) {
			c.runtime.infer(top, nil)
		} else {
			c.agent.infer(a.front(), nil)
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
	c.runtime.decide()
	for _, s := range []*source{c.runtime.source, c.agent.source} {
		for top := s.waiting.front(); top != nil && top.since <= due.UnixNano(); top = s.waiting.front() {
			s.infer(top, nil)
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

// cut makes a span parentless: what it names as its parent is below it.
func (c *Collator) cut(n *node) {
	c.stats.Cut++
	n.ParentID = [8]byte{}
}

func (c *Collator) now() int64 { return c.opts.Now().UnixNano() }
