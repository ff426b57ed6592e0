package calls

import (
	"cmp"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Options configure Calls. Each has a default, stated at its field.
type Options struct {
	// Isolated: spans stay in their own traces and are only linked to their cause.
	Isolated bool
	// Root is the context of the sandbox's root span. Without a root, spans that no call caused
	// have no cause.
	Root trace.SpanContext
	// Began is when the sandbox began: no span begins earlier. Zero: unknown.
	Began time.Time
	// OnDemand: only what happens between SetRoot and EndRoot is recorded. Otherwise
	// everything is, until the first EndRoot.
	OnDemand bool
	// Sandbox is the sandbox's id. A guest's span may be about it, or about a container that a
	// call has created; any other id is marked as claimed.
	Sandbox string

	// Quiet are the shim's methods whose calls, and what they cause in the agent, are recorded
	// only if they fail or take longer than Slow (0: only if they fail). Names are "Stats" or
	// "containerd.task.v3.Task/Stats".
	Quiet []string
	Slow  time.Duration
	// QuietSpans are the names of the runtime's spans that are recorded only if they fail or
	// take longer than Slow.
	QuietSpans []string

	// MaxCalls bounds the calls remembered for each method. Default 128.
	MaxCalls int
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (o *Options) defaults() {
	o.MaxCalls = cmp.Or(o.MaxCalls, 128)
	if o.Now == nil {
		o.Now = time.Now
	}
}
