package kata

import (
	"cmp"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/middleware"
)

// collateCall has what is known of a call before its answer.
func collateCall(c *middleware.Call) calls.Call {
	return calls.Call{
		Method:      c.Method,
		ContainerID: cmp.Or(c.ContainerID, c.SandboxID),
		ExecID:      c.ExecID,
		Start:       c.Start,
		Quiet:       c.Quiet(),
		SpanContext: c.SpanContext(),
	}
}

func answeredCall(c *middleware.Call) calls.Call {
	call := collateCall(c)
	call.End, call.Failed = c.End, c.Code != 0 && !c.Expected
	return call
}

// lostCall is a call without an answer. A quiet one is not recorded for that, however
// long it was.
func lostCall(c *middleware.Call) calls.Call {
	call := collateCall(c)
	call.End, call.Failed = c.End, !c.Quiet()
	if c.Quiet() {
		call.End = c.Start
	}
	return call
}
