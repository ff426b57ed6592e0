package calls

import (
	"math"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// runtime is what is known of the spans that the sandbox's runtime makes itself, in traces
// that know nothing of ours.
type runtime struct {
	traces recent.Map[trace.TraceID, struct{}]
	// stale are the spans that no request is below any more.
	stale recent.Map[trace.SpanID, struct{}]
	// asked are the requests to the agent, as the runtime's own spans have them.
	asked recent.Map[trace.SpanID, asked]
}

// asked is a request to the agent by the runtime's own span.
type asked struct {
	Period
	request string // "CreateContainer"
}

const (
	// maxStale bounds the runtime's calls remembered because its requests may go on to
	// name them: those of containers, and of their execs.
	maxStale = 4096
	// maxAsked bounds the requests remembered because the agent's spans may name them.
	maxAsked = 4096
)

func newRuntime() runtime {
	return runtime{
		traces: recent.New[trace.TraceID, struct{}](maxTraces),
		stale:  recent.New[trace.SpanID, struct{}](maxStale),
		asked:  recent.New[trace.SpanID, asked](maxAsked),
	}
}

// Learn takes in what a span of the runtime's says that has arrived: the trace is the
// runtime's, and if it is a request to the agent, when that was.
func (c *Calls) Learn(s *Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runtime.traces.Put(s.TraceID, struct{}{})
	if !s.IsThread() && !c.isQuiet(s.method) {
		c.runtime.stale.Put(s.SpanID, struct{}{})
	}
	if request, ok := strings.CutPrefix(s.Name, kata.RequestPrefix); ok {
		at := s.at
		if s.Failed {
			at.End = math.MaxInt64 // it may have been given up, and gone on in the agent
		}
		c.runtime.asked.Put(s.SpanID, asked{at, request})
	}
}

// Stale tells that no request is below a span of the runtime's.
func (c *Calls) Stale(id trace.SpanID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runtime.stale.Put(id, struct{}{})
}

// IsRuntime reports whether the runtime records its own spans in a trace.
func (c *Calls) IsRuntime(id trace.TraceID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runtime.traces.Has(id)
}

// HasRuntime reports whether there are spans of the runtime's.
func (c *Calls) HasRuntime() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runtime.traces.Len() > 0
}

// parents are spans that contexts name which were handed out, or taken for it, before they
// have arrived: where they come into which trace, if they come.
type parents struct {
	// byHost are those that the runtime's requests came with, byGuest those that only the
	// agent has named.
	byHost  recent.Map[trace.SpanID, *Parent]
	byGuest recent.Map[trace.SpanID, *Parent]
}

// Parent is such a span.
type Parent struct {
	ID trace.SpanID
	Cause
	// Requests is when the requests were that are recorded below it; zero: there are none.
	Requests Period
}

// maxParents bounds those that are remembered.
const maxParents = 4096

func newParents() parents {
	return parents{recent.New[trace.SpanID, *Parent](maxParents), recent.New[trace.SpanID, *Parent](maxParents)}
}

// named returns a parent, nil if it has not been named.
func (p *parents) named(id trace.SpanID) *Parent {
	if named, ok := p.byHost.Get(id); ok {
		return named
	}
	named, _ := p.byGuest.Get(id)
	return named
}

// expect has a request's parent come into the trace of a cause. It reports false if that
// is not the runtime's, has been named as being in another trace, or is an old one: where
// the Go runtime does not trace any more, its requests go on to name what it did last.
func (c *Calls) expect(caller, cause trace.SpanContext) bool {
	id := caller.SpanID()
	if !c.runtime.traces.Has(caller.TraceID()) || c.runtime.stale.Has(id) {
		return false
	}
	if named, ok := c.parents.byHost.Get(id); ok {
		return named.Trace == cause.TraceID()
	}
	c.parents.byHost.Put(id, &Parent{ID: id, Cause: Cause{Trace: cause.TraceID(), Parent: cause.SpanID()}})
	return true
}

// requested remembers that a request is recorded below a parent.
func (c *Calls) requested(caller trace.SpanID, when Period) {
	if p, ok := c.parents.byHost.Get(caller); !ok {
		return
	} else if p.Requests == (Period{}) {
		p.Requests = when
	} else {
		p.Requests = Period{min(p.Requests.Start, when.Start), max(p.Requests.End, when.End)}
	}
}

// Named returns the cause of a span that is to come into a trace if it comes, since it was
// named there.
func (c *Calls) Named(id trace.SpanID) (Cause, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.parents.named(id); p != nil {
		return p.Cause, true
	}
	return Cause{}, false
}

// Requested returns the parents below which requests are recorded, once.
func (c *Calls) Requested() (all []Parent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.parents.byHost.All() {
		if p.Requests != (Period{}) {
			all = append(all, *p)
			p.Requests = Period{}
		}
	}
	return all
}
