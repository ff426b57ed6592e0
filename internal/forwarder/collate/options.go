package collate

import (
	"cmp"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Sink takes a batch of n spans of one resource and instrumentation scope, encoded as
// consecutive elements of an OTLP ScopeSpans message's spans. It must not keep the slice.
type Sink func(resource *resourcepb.Resource, scope string, spans []byte, n int)

// Options configure a Collator. Sink is required; the rest has the defaults stated at each
// field.
type Options struct {
	calls.Options

	// Resource is stamped on every span of the agent: service.name, the sandbox, its pod, the
	// host. Nothing of the guest's own resource remains.
	Resource *resourcepb.Resource
	// Runtime is the same for the runtime's spans.
	Runtime *resourcepb.Resource

	// Hold is how long a span waits for its parent. Default: package defaults.
	Hold time.Duration
	// MaxSpans and MaxBytes bound the waiting spans. Beyond them the longest waiting ones are
	// placed early; none is dropped. Default: package defaults.
	MaxSpans, MaxBytes int
	// MaxAwaited bounds the missing parents whose children were sent, and so the placeholders.
	// Beyond it children go directly below the call. Default 1024.
	MaxAwaited int
	// MaxBatch is how many spans go to the sink at once. Default 256.
	MaxBatch int

	// Sink takes the spans. It is called from Add, AddRuntime, Tick and Ended, one call at a
	// time.
	Sink Sink
	// Drop is called for each span that will not reach the sink. It is called from the
	// same methods as Sink and must not block. Default: none.
	Drop func(reason Reason, n int)
	// Done is called with each span of the agent once nothing refers to it any more. Default:
	// none.
	Done func(*span.Span)
	// Drawn is called for each span that reaches the sink, of the guest or of the runtime,
	// with its times on the host's clock. It must not block. Default: nobody is told.
	Drawn func(name string, guest bool, start, end time.Time)
	// Arrived is called for each span that is added: Tick is due within a second. It must not
	// block. Default: none.
	Arrived func()
}

func (o *Options) defaults() {
	o.Hold = cmp.Or(o.Hold, defaults.Hold)
	o.MaxSpans = cmp.Or(o.MaxSpans, defaults.HeldSpans)
	o.MaxBytes = cmp.Or(o.MaxBytes, defaults.HeldBytes)
	o.MaxAwaited = cmp.Or(o.MaxAwaited, 1024)
	o.MaxBatch = cmp.Or(o.MaxBatch, 256)
	if o.Drop == nil {
		o.Drop = func(Reason, int) {}
	}
	if o.Done == nil {
		o.Done = func(*span.Span) {}
	}
	if o.Arrived == nil {
		o.Arrived = func() {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}
