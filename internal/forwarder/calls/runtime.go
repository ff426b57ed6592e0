package calls

import (
	"math"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// runtimeSpan is what is remembered of a span that Kata's runtime made itself.
type runtimeSpan struct {
	// request is the request to the agent that the span is for ("CreateContainer"), and Period
	// is when it was. Empty: no further request is below the span, even if one names it.
	request string
	Period
	root bool // the runtime's calls name it as their parent
}

// maxRuntimeSpans bounds the remembered spans of the runtime: calls of containers and their
// execs, which later requests may still name, and requests, which the agent's spans may name.
const maxRuntimeSpans = 8192

// Learn takes in a runtime's span that has arrived: its trace is the runtime's, and if it is a
// request to the agent, its times bound the agent's span.
func (c *Calls) Learn(s *Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hasRuntime = true
	known, _ := c.traces.Get(s.TraceID)
	known.runtimes = true
	c.traces.Put(s.TraceID, known)
	request, ok := strings.CutPrefix(s.Name, kata.RequestPrefix)
	switch {
	case !s.IsThread() && !c.isQuiet(s.method):
		c.runtime.Put(s.SpanID, runtimeSpan{})
	case ok:
		at := s.at
		if s.Failed {
			at.End = math.MaxInt64 // it may have been given up, and gone on in the agent
		}
		c.runtime.Put(s.SpanID, runtimeSpan{request: request, Period: at})
	}
}

// LearnRoot marks a span as a root of the runtime. IsRoot reports whether it is one.
func (c *Calls) LearnRoot(id trace.SpanID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runtime.Put(id, runtimeSpan{root: true})
}

func (c *Calls) IsRoot(id trace.SpanID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, _ := c.runtime.Get(id)
	return known.root
}

// IsRuntime reports whether a trace is one of the runtime's own.
func (c *Calls) IsRuntime(id trace.TraceID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, _ := c.traces.Get(id)
	return known.runtimes
}

// HasRuntime reports whether any span of the runtime has arrived.
func (c *Calls) HasRuntime() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasRuntime
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

// maxParents bounds each of the two maps.
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
// the parent is not the runtime's, is assigned to another trace, or has no further requests: once
// the Go runtime has stopped tracing, its requests keep naming its last span.
func (c *Calls) expect(caller, cause trace.SpanContext) bool {
	id := caller.SpanID()
	in, _ := c.traces.Get(caller.TraceID())
	if known, ok := c.runtime.Get(id); !in.runtimes || ok && known.request == "" {
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
