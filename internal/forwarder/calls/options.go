package calls

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Options are what Calls are made of. All have defaults, named at each field.
type Options struct {
	// Isolated: what a span is part of is only linked to it, in whose own trace it remains.
	Isolated bool
	// Root is the context of the sandbox's root span. Without one, what no call caused
	// has no cause.
	Root trace.SpanContext
	// Began is when the sandbox did: none of its spans begins before. Zero: not known.
	Began time.Time
	// OnDemand: only what happens between SetRoot and EndRoot is recorded.
	OnDemand bool
	// Sandbox is the sandbox's id. The guest may say that a span is about it, or about a
	// container that a call has created; of others it claims so.
	Sandbox string

	// Quiet are the methods of the shim whose calls, and what they cause in the
	// agent, are recorded only when they fail or take longer than Slow (0: never
	// for being slow). Names are "Stats" or "containerd.task.v3.Task/Stats".
	Quiet []string
	Slow  time.Duration
	// QuietSpans are the names of the runtime's spans that are recorded only when
	// they fail or take longer than Slow.
	QuietSpans []string

	// MaxCalls is how many calls of each method are remembered. Default 128.
	MaxCalls int
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (o *Options) defaults() {
	o.MaxCalls = cmp.Or(o.MaxCalls, 128)
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Quiet = slices.Clone(o.Quiet)
	for i, m := range o.Quiet {
		o.Quiet[i] = m[strings.LastIndexByte(m, '/')+1:]
	}
}
