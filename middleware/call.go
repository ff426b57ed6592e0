package middleware

import (
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Call is one ttrpc call as it passes: what its request says, and once it is
// answered, how it ended. Fields that a message does not have are zero.
type Call struct {
	Service string // "containerd.task.v3.Task"
	Method  string // "Create"

	ContainerID string
	ExecID      string
	SandboxID   string
	Bundle      string // of Create and CreateSandbox: a directory
	Signal      uint32 // of Kill
	Pod         Pod    // of CreateSandbox

	// Stream reports whether it is a streaming call.
	Stream bool
	// Caller is the span context that the request came with, unless tracing was
	// switched off then.
	Caller trace.SpanContext
	// Parent is the span context that the call's span is under, if any.
	Parent trace.SpanContext
	// Start is when the request was read, and End when its answer was read. The time
	// between them is right even if the host's clock was set meanwhile.
	Start, End time.Time

	// Code is the answer's status, 0 for OK.
	Code Code
	// Message is what may be said of the answer's error message, at most 512 bytes:
	// values, quotations and whatever else may be a secret are left out.
	Message string
	// Closed reports whether the connection ended before the call was answered.
	Closed bool
	// Expected reports whether the call failed as it does in a healthy life; see
	// WithExpected.
	Expected bool
	PID      uint32
	// Exited reports whether the answer has an exit status (of Wait and Delete).
	Exited     bool
	ExitStatus uint32
	ExitedAt   time.Time

	method  *method
	spans   *spans
	span    trace.Span    // nil: it began while tracing was switched off
	timeout time.Duration // 0: none
	at      uint64        // the position of the request in its stream
	link    *trace.SpanContext
	lost    error  // why there was no answer
	turns   uint32 // of the Switch, when it began
	fate    uint32 // of a quiet call; see Keep
}

// deadline returns when the caller gives the call up, if it ever does.
func (c *Call) deadline() (at time.Time, ok bool) { return c.Start.Add(c.timeout), c.timeout > 0 }

// ended notes when the call's answer was read. A start that another process has noted
// can lie after it, if the clock was set back.
func (c *Call) ended(at time.Time) { c.End = c.Start.Add(max(at.Sub(c.Start), 0)) }

// Pod is what a sandbox is for, as its CRI configuration says.
type Pod struct{ Name, Namespace, UID string }

// SpanContext returns the context of the call's span, with which the request was
// forwarded; an invalid one while it has none, see Switch.
func (c *Call) SpanContext() trace.SpanContext {
	if c.span == nil {
		return trace.SpanContext{}
	}
	return c.span.SpanContext()
}

// Quiet reports whether the call is recorded only when it fails or is slow.
func (c *Call) Quiet() bool { return c.Stream || c.method != nil && c.method.quiet }

// Waits reports whether the call lasts as long as what it waits for.
func (c *Call) Waits() bool { return c.method != nil && c.method.Waits }

// Keep has the span of the call recorded although the call is quiet: something
// below it is. It may be called at any time, also when the call is over.
func (c *Call) Keep() {
	if atomic.CompareAndSwapUint32(&c.fate, undecided, kept) || !atomic.CompareAndSwapUint32(&c.fate, dropped, kept) {
		return
	}
	c.spans.guard(func() { c.spans.record(c) })
}

// What becomes of a quiet call.
const (
	undecided uint32 = iota // it has not ended
	dropped                 // it has, and was not recorded
	kept                    // it is recorded, or will be when it ends
)

// drop decides that the call is not recorded, and reports whether nobody has kept it.
func (c *Call) drop() bool { return atomic.CompareAndSwapUint32(&c.fate, undecided, dropped) }
