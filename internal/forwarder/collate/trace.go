package collate

import (
	"crypto/sha256"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
)

// guestTrace is what is known of a trace that the guest named.
type guestTrace struct {
	calls.Cause
	placed bool
	// foreign: its requests come with contexts of somebody's who is not here.
	foreign bool
}

// maxTraces bounds those that are remembered.
const maxTraces = 1024

// rememberTrace remembers the cause of a trace that the guest named: what comes late of
// it follows.
func (c *Collator) rememberTrace(id trace.TraceID, cause calls.Cause) {
	if c.IsRuntime(id) {
		return // one trace for all of the sandbox's life has no one cause
	}
	if t, _ := c.traces.Get(id); !t.placed {
		cause.Shift, cause.Link = nil, calls.Link{}
		t.Cause, t.placed = cause, true
		c.traces.Put(id, t)
	}
}

// rememberForeign remembers that a trace comes with contexts of somebody's who is not here.
func (c *Collator) rememberForeign(id trace.TraceID) {
	t, _ := c.traces.Get(id)
	t.foreign = true
	c.traces.Put(id, t)
}

// isolated are the traces that stay the guest's: where the sandbox is isolated, nobody
// knows its calls, or it has no root.
type isolated struct{ secret [16]byte }

// trace returns the id of one, which the guest can neither choose nor know.
func (i *isolated) trace(named trace.TraceID) (id trace.TraceID) {
	var seed [32]byte
	copy(seed[:], i.secret[:])
	copy(seed[16:], named[:])
	sum := sha256.Sum256(seed[:])
	copy(id[:], sum[:])
	return id
}

// orOwnTrace returns cause, or if there is none, that of a span which stays in the trace that
// it says. If a guest says so, that is an isolated one, unless the sandbox uses the trace.
func (s *source) orOwnTrace(cause calls.Cause, own trace.TraceID) calls.Cause {
	if cause.Trace.IsValid() || cause.Drop != "" {
		return cause
	}
	if cause.Trace = own; s.above != nil && !s.HasTrace(own) {
		cause.Trace = s.isolated.trace(own)
	}
	return cause
}
