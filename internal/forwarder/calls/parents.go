package calls

import (
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
)

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
	// Requests is when the requests were that are recorded below it, if there are any.
	Requests Period
	Any      bool
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
	p, ok := c.parents.byHost.Get(caller)
	if !ok {
		return
	}
	if !p.Any {
		p.Requests, p.Any = when, true
	}
	p.Requests = Period{min(p.Requests.Start, when.Start), max(p.Requests.End, when.End)}
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
		if p.Any {
			all = append(all, *p)
			p.Any = false
		}
	}
	return all
}
