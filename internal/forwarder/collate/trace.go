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

// orOwnTrace returns cause, or if there is none, that of a span which remains in a trace of its
// own. The runtime's is the host's, and may be what it says. The id of a guest's is one that
// the guest can neither rememberTrace nor know, unless the sandbox uses the trace that it named.
func (s *source) orOwnTrace(cause calls.Cause, own trace.TraceID) calls.Cause {
	if cause.Trace.IsValid() || cause.Drop != "" {
		return cause
	}
	cause.Trace = own
	if s.above != nil && !s.HasTrace(own) {
		var seed [32]byte
		copy(seed[copy(seed[:], s.secret[:]):], own[:])
		sum := sha256.Sum256(seed[:])
		copy(cause.Trace[:], sum[:])
	}
	return cause
}
