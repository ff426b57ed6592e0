package middleware

import (
	"strconv"
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

	// Stream tells a streaming call from a unary one.
	Stream bool
	// Caller is the span context that the request came with.
	Caller trace.SpanContext
	// Start is when the request was read, End when its answer was.
	Start, End time.Time

	// Code is the answer's status, 0 for OK.
	Code Code
	// Message is the answer's error message, at most maxMessage bytes.
	Message string
	PID     uint32
	// Exited tells that the answer has an exit status (of Wait and Delete).
	Exited     bool
	ExitStatus uint32
	ExitedAt   time.Time

	method   *method
	span     trace.Span
	deadline time.Time // zero: none
}

// SpanContext returns the context of the call's span, with which the request was
// forwarded.
func (c *Call) SpanContext() trace.SpanContext {
	if c.span == nil {
		return trace.SpanContext{}
	}
	return c.span.SpanContext()
}

// Quiet tells that the call is recorded only when it fails or is slow.
func (c *Call) Quiet() bool { return c.Stream || c.method != nil && c.method.quiet }

// Observer is told of the calls that pass, by whoever relays or intercepts them,
// and says what the span of a call should know beyond the call itself. Its
// methods are called from the goroutines that forward: Parent before the request
// is forwarded, the others after, and Answered possibly before Forwarded.
type Observer interface {
	// Parent returns the span context that the call belongs under when its request
	// has none, and to which it is linked when it has one. It must not block.
	Parent(*Call) trace.SpanContext
	// Forwarded is called once the request has been written.
	Forwarded(*Call)
	// Answered is called once the answer has been written, before the span ends.
	Answered(*Call)
	// Annotate is called for a span that will be recorded, before it ends.
	Annotate(*Call, trace.Span)
}

// Code is a status code of google.rpc.Code, which ttrpc answers with.
type Code uint32

var codeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
	"ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
	"ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
	"UNAUTHENTICATED",
}

// String returns the code's name in google.rpc.Code, "CODE_99" for none of them.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return "CODE_" + strconv.FormatUint(uint64(c), 10)
}
