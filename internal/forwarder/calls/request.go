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
	// Caller is the context that a tracing runtime sent with the request.
	Caller trace.SpanContext
	// Quiet: its span is recorded only if it fails or is slow.
	Quiet bool
}

// Cause returns the parent of a request to the agent: the shim's open call that causes it, else
// the sandbox's root. If the runtime's own spans arrive here, the parent is the runtime's span
// that the request names, in the trace to which that span will be moved.
func (c *Calls) Cause(r Request) trace.SpanContext {
	c.mu.Lock()
	defer c.mu.Unlock()
	caused := c.inFlight(&r)
	cause := c.windows.last().SpanContext
	if caused != nil {
		cause = caused.SpanContext
	}
	if r.Quiet || caused != nil && caused.Quiet || c.opts.Isolated || !cause.IsSampled() || !r.Caller.IsValid() {
		return cause
	}
	if !c.expect(r.Caller, cause) {
		return cause
	}
	return cause.WithSpanID(r.Caller.SpanID())
}

// Moves reports whether spans in a trace of the runtime are moved to other traces.
func (c *Calls) Moves(id trace.TraceID) bool { return !c.opts.Isolated && c.IsRuntime(id) }

// inFlight returns the open call that causes a request, nil if there is none. Of several for
// the same container it prefers one without a request of this method yet, then the latest.
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

// QuietRequests returns the requests to the agent that only quiet methods of the shim cause.
func QuietRequests(quiet []string) (requests []string) {
	c := New(Options{Quiet: quiet})
	for i := range kata.Requests {
		if r := &kata.Requests[i]; c.quietRequest(r) {
			requests = append(requests, r.Name)
		}
	}
	return requests
}
