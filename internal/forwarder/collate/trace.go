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
	// foreign: its requests name callers that are not known here.
	foreign bool
}

// maxTraces bounds the remembered traces.
const maxTraces = 1024

// rememberTrace remembers the cause of a trace that the guest named, for its late spans.
func (c *Collator) rememberTrace(id trace.TraceID, cause calls.Cause) {
	if c.IsRuntime(id) {
		return // this trace spans the sandbox's life and has no single cause
	}
	if t, _ := c.traces.Get(id); !t.placed {
		cause.Shift, cause.Link = nil, calls.Link{}
		t.Cause, t.placed = cause, true
		c.traces.Put(id, t)
	}
}

// rememberForeign remembers that a trace's callers are not known here.
func (c *Collator) rememberForeign(id trace.TraceID) {
	t, _ := c.traces.Get(id)
	t.foreign = true
	c.traces.Put(id, t)
}

// isolatedTrace returns the id of a trace that stays the guest's: the sandbox is isolated, its
// calls are unknown, or it has no root. The guest can neither choose nor know this id.
func (c *Collator) isolatedTrace(named trace.TraceID) (id trace.TraceID) {
	seed := append(append(make([]byte, 0, 32), c.secret[:]...), named[:]...)
	sum := sha256.Sum256(seed)
	copy(id[:], sum[:])
	return id
}

// orOwnTrace returns cause; if it is empty, that of a span that stays in its own trace. For the
// agent's spans that is an isolated trace, unless the sandbox uses the named one.
func (s *source) orOwnTrace(cause calls.Cause, own trace.TraceID) calls.Cause {
	if cause.Trace.IsValid() || cause.Drop != "" {
		return cause
	}
	if cause.Trace = own; s.above != nil && !s.HasTrace(own) {
		cause.Trace = s.isolatedTrace(own)
	}
	return cause
}
