package kata

import (
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/shim/expected"
	"github.com/shimtrace/shimtrace/middleware"
)

// requestKind is the kind of the spans of requests to the agent: seen from the
// runtime, which makes them.
const requestKind = trace.SpanKindClient

// requests follows the runtime's requests to the agent and puts each under the call of
// the shim that caused it (middleware.Observer).
type requests struct {
	tracer  trace.Tracer
	sandbox Sandbox
	calls   *calls.Calls
	quiet   quietCalls // of the shim
	lives   *expected.Lives
	// answered is told of each answer of the agent's; nil: nobody is.
	answered func(at time.Time)
}

func newRequests(tracer trace.Tracer, s Sandbox, c *calls.Calls) *requests {
	return &requests{tracer: tracer, sandbox: s, calls: c, lives: expected.OfAgent()}
}

var _ middleware.Observer = (*requests)(nil)

// Parent implements middleware.Observer: package calls knows better than the caller what
// caused a request. A request that the runtime traces stays in the runtime's trace where
// there is none of ours.
func (r *requests) Parent(c *middleware.Call) (parent, link trace.SpanContext) {
	cause := r.calls.Cause(calls.Request{
		Method:      c.Method,
		ContainerID: c.ContainerID,
		ExecID:      c.ExecID,
		Caller:      c.Caller,
		Quiet:       c.Quiet(),
	})
	if c.Caller.IsSampled() && !cause.IsSampled() {
		return trace.SpanContext{}, trace.SpanContext{}
	}
	return cause, r.found(c.Caller, cause)
}

// found returns the caller's context if the caller's span will be where that context says;
// otherwise an invalid one.
func (r *requests) found(caller, parent trace.SpanContext) trace.SpanContext {
	if caller.SpanID() != parent.SpanID() && r.calls.Moves(caller.TraceID()) {
		return trace.SpanContext{}
	}
	return caller
}

// Began implements middleware.Observer. What is below a quiet request never arrives:
// its context says so.
func (r *requests) Began(c *middleware.Call) {
	if !c.Quiet() {
		r.calls.Request(collateCall(c), r.found(c.Caller, c.Parent))
	}
}

// Forwarded implements middleware.Observer.
func (r *requests) Forwarded(c *middleware.Call) {
	r.lives.Forwarded(c)
	r.followed(c)
}

// followed has the lives saved if a call has changed one.
func (r *requests) followed(c *middleware.Call) {
	if r.lives.Follows(c) {
		r.sandbox.Changed()
	}
}

// Answered implements middleware.Observer.
func (r *requests) Answered(c *middleware.Call) {
	r.lives.Answered(c)
	if r.answered != nil {
		r.answered(c.End)
	}
	r.followed(c)
	if !c.Quiet() {
		r.calls.Request(answeredCall(c), r.found(c.Caller, c.Parent))
	}
}

// Lost implements middleware.Observer.
func (r *requests) Lost(c *middleware.Call) {
	if !c.Quiet() {
		r.calls.Request(lostCall(c), r.found(c.Caller, c.Parent))
	}
}

// Annotate implements middleware.Observer. What a request is under must be recorded
// if the request is.
func (r *requests) Annotate(c *middleware.Call, span trace.Span) {
	span.SetAttributes(r.sandbox.Attributes(c.ContainerID)...)
	r.quiet.keep(c.Parent.SpanID())
}
