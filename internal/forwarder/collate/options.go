package collate

import (
	"cmp"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
)

// Sink takes a batch of spans, so many, of one resource and instrumentation scope: the
// elements of an OTLP ScopeSpans message's spans, one after another. It keeps no part of
// them.
type Sink func(resource *resourcepb.Resource, scope string, spans []byte, n int)

// Options are what a Collator is made of. Sink is required, the rest has the
// defaults named at each field.
type Options struct {
	calls.Options

	// Resource is stamped on every span: service.name, the sandbox, its pod, the
	// host. Nothing of the guest's own resource remains.
	Resource *resourcepb.Resource
	// Runtime is the same for the spans of the sandbox's runtime.
	Runtime *resourcepb.Resource

	// Hold is how long a span waits for what is above it. Default: package defaults.
	Hold time.Duration
	// MaxSpans and MaxBytes bound the spans that wait. Beyond them those that
	// waited longest get their place early; none is dropped. Default: package defaults.
	MaxSpans, MaxBytes int
	// MaxAwaited bounds the parents that are missing while their children have
	// been sent already, and so the placeholders. Beyond it children are put
	// directly under the call. Default 1024.
	MaxAwaited int
	// MaxBatch is how many spans go to the sink at once. Default 256.
	MaxBatch int

	// Sink takes the spans. It is called from Add, AddRuntime, Tick and Ended, never by
	// two at once.
	Sink Sink
	// Drop is told of each span that will not reach the sink, and why. It is called
	// from where Sink is and must not block. Default: nobody asks.
	Drop func(reason Reason, n int)
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
	if o.Now == nil {
		o.Now = time.Now
	}
}
