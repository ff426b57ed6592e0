package calls

import (
	"math"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// runtime is what is known about the spans that Kata's runtime makes itself, in traces of its
// own.
type runtime struct {
	traces recent.Map[trace.TraceID, struct{}]
	// stale are spans that no further request is below, even if it names them.
	stale recent.Map[trace.SpanID, struct{}]
	// asked are the requests to the agent for which the runtime has sent a span.
	asked recent.Map[trace.SpanID, asked]
}

// asked is a request to the agent, by the runtime's span for it.
type asked struct {
	Period
	request string // "CreateContainer"
}

const (
	// maxStale bounds the remembered calls of the runtime that later requests may still name:
	// those of containers and their execs.
	maxStale = 4096
	// maxAsked bounds the remembered requests that the agent's spans may name.
	maxAsked = 4096
)

func newRuntime() runtime {
	return runtime{
		traces: recent.New[trace.TraceID, struct{}](maxTraces),
		stale:  recent.New[trace.SpanID, struct{}](maxStale),
		asked:  recent.New[trace.SpanID, asked](maxAsked),
	}
}

// Learn takes in a runtime's span that has arrived: its trace is the runtime's, and if it is a
// request to the agent, its times bound the agent's span.
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

// Stale marks a runtime's span as one that no further request is below.
func (c *Calls) Stale(id trace.SpanID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runtime.stale.Put(id, struct{}{})
}

// IsRuntime reports whether a trace is one of the runtime's own.
func (c *Calls) IsRuntime(id trace.TraceID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runtime.traces.Has(id)
}

// HasRuntime reports whether any span of the runtime has arrived.
func (c *Calls) HasRuntime() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runtime.traces.Len() > 0
}

// parents are spans that requests named as their parent before they arrived, with the trace
// that each goes to if it arrives.
type parents struct {
	// byHost are those named by the runtime's requests, byGuest those named only by the agent.
	byHost  recent.Map[trace.SpanID, *Parent]
	byGuest recent.Map[trace.SpanID, *Parent]
}

// Parent is a span that was named as a parent before it arrived.
type Parent struct {
	ID trace.SpanID
	Cause
	// Requests is when its recorded requests were; zero: there are none.
	Requests Period
}

// maxParents bounds each of the two.
const maxParents = 4096

func newParents() parents {
	return parents{recent.New[trace.SpanID, *Parent](maxParents), recent.New[trace.SpanID, *Parent](maxParents)}
}

// named returns a parent, nil if no request has named it.
func (p *parents) named(id trace.SpanID) *Parent {
	if named, ok := p.byHost.Get(id); ok {
		return named
	}
	named, _ := p.byGuest.Get(id)
	return named
}

// expect assigns the parent that a request names to the trace of a cause. It reports false if
// the parent is not the runtime's, is assigned to another trace, or is stale: once the Go
// runtime has stopped tracing, its requests keep naming its last span.
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

// requested records a request below a parent.
func (c *Calls) requested(caller trace.SpanID, when Period) {
	if p, ok := c.parents.byHost.Get(caller); !ok {
		return
	} else if p.Requests == (Period{}) {
		p.Requests = when
	} else {
		p.Requests = Period{min(p.Requests.Start, when.Start), max(p.Requests.End, when.End)}
	}
}

// Named returns the cause of a span that was named as a parent before it arrived.
func (c *Calls) Named(id trace.SpanID) (Cause, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.parents.named(id); p != nil {
		return p.Cause, true
	}
	return Cause{}, false
}

// Requested returns the parents with recorded requests, each request once.
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
