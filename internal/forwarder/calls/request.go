package calls

import (
	"math"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// Request is a request to the agent that is about to be sent.
type Request struct {
	Method              string // "CreateContainer"
	ContainerID, ExecID string
	// Caller is the context that the request comes with, from a runtime that traces
	// too.
	Caller trace.SpanContext
	// Quiet: its span is recorded only when it fails or is slow.
	Quiet bool
}

// Cause returns the span that a request to the agent belongs under: of the shim's
// calls in flight the one that causes it, else the sandbox's root. If the runtime's
// own spans arrive here, it is the runtime's span that the request names, in the
// trace that this will be put into.
func (c *Calls) Cause(r Request) trace.SpanContext {
	c.mu.Lock()
	defer c.mu.Unlock()
	caused := c.inFlight(&r)
	cause := c.windows.last().SpanContext
	if caused != nil {
		cause = caused.SpanContext
	}
	if r.Quiet || caused != nil && c.quietCall(caused) || c.opts.Isolated || !cause.IsSampled() || !r.Caller.IsValid() {
		return cause
	}
	if !c.expect(r.Caller, cause) {
		return cause
	}
	return cause.WithSpanID(r.Caller.SpanID())
}

// Moves reports whether what is in a trace of the runtime's is put into others.
func (c *Calls) Moves(id trace.TraceID) bool { return !c.opts.Isolated && c.IsRuntime(id) }

// inFlight returns the open call that causes a request: of several for the same
// container the last that has not caused one like it. It is nil if there is none.
func (c *Calls) inFlight(r *Request) *call {
	methods := causing
	if known := kata.RequestNamed(r.Method); known != nil {
		methods = known.CausedBy
	}
	exec := kata.ExecID(r.ContainerID, r.ExecID)
	caused := c.best(methods, func(known *call, _ int) (rank, bool) {
		like := known.compare(r.ContainerID, exec)
		fresh := like > noIDs && !slices.Contains(known.seen, r.Method)
		return rank{int64(like), one(fresh), known.start}, known.end == math.MaxInt64 && like != otherIDs
	})
	if caused != nil {
		caused.see(r.Method)
	}
	return caused
}

// QuietRequests returns the requests to the agent that only quiet methods of the shim
// cause.
func QuietRequests(quiet []string) (requests []string) {
	c := New(Options{Quiet: quiet})
	for i := range kata.Requests {
		if r := &kata.Requests[i]; c.quietRequest(r) {
			requests = append(requests, r.Name)
		}
	}
	return requests
}
