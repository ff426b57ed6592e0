package collate

import (
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Mode says where spans go that carry no context of the sandbox's.
type Mode int

const (
	// Collated puts them into the trace of the call that caused them.
	Collated Mode = iota
	// Isolated leaves them in traces of their own, each of whose roots is linked
	// to the sandbox's. The ids of these traces are derived from the guest's, so
	// that none can be that of somebody else's trace.
	Isolated
)

// Options are what a Collator is made of. Sink is required, the rest has the
// defaults named at each field.
type Options struct {
	Mode Mode

	// Root is the context of the sandbox's root span. Without one, spans that no
	// call caused are treated as isolated.
	Root trace.SpanContext
	// Began is when the sandbox did: none of its spans begins before. Zero: not known.
	Began time.Time
	// OnDemand: only what happens between SetRoot and EndRoot is recorded.
	OnDemand bool
	// Sandbox is the sandbox's id. The guest may say that a span is about it, or about a
	// container that a call has created; of others it claims so.
	Sandbox string
	// Resource is stamped on every span: service.name, the sandbox, its pod, the
	// host. Nothing of the guest's own resource remains.
	Resource *resourcepb.Resource

	// Runtime is the same for the spans of the sandbox's runtime.
	Runtime *resourcepb.Resource

	// Quiet are the methods of the shim whose calls, and what they cause in the
	// agent, are recorded only when they fail or take longer than Slow (0: never
	// for being slow). Names are "Stats" or "containerd.task.v3.Task/Stats".
	Quiet []string
	Slow  time.Duration

	// QuietSpans are the names of spans of the runtime's that are recorded only when
	// they fail or take longer than Slow.
	QuietSpans []string

	// Hold is how long a span waits for what is above it. Default 15 s: the agent
	// sends every 5 s, so what is late by two of its batches is lost or lasts.
	Hold time.Duration
	// MaxSpans and MaxBytes bound the spans that wait. Beyond them those that
	// waited longest get their place early; none is dropped. Defaults 8192 and
	// 8 MiB.
	MaxSpans, MaxBytes int
	// MaxAwaited bounds the parents that are missing while their children have
	// been sent already, and so the placeholders. Beyond it children are put
	// directly under the call. Default 1024.
	MaxAwaited int
	// MaxCalls is how many calls of each method are remembered. Default 128.
	MaxCalls int
	// Remember is how many spans are remembered once they got their place, for
	// children and duplicates that come late. Default 4096, of about 150 bytes each.
	Remember int
	// MaxBatch is how many spans go to the sink at once. Default 256.
	MaxBatch int

	// Skew is how far the guest's clock may be off when calls are found by time.
	// Default 2 s.
	Skew time.Duration

	// Sink takes the spans. It is called from Add, AddRuntime, Tick and Ended, never by
	// two at once, and owns what it gets, all but the resource and the scope.
	Sink func([]*tracepb.ResourceSpans)
	// Drop is told of each span that will not reach the sink, and why. It is called
	// from where Sink is and must not block. Default: nobody asks.
	Drop func(reason Reason, n int)
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (o *Options) defaults() {
	for _, d := range []struct {
		field *int
		value int
	}{
		{&o.MaxSpans, 8192}, {&o.MaxBytes, 8 << 20}, {&o.MaxAwaited, 1024},
		{&o.MaxCalls, 128}, {&o.Remember, 4096}, {&o.MaxBatch, 256},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&o.Hold, 15 * time.Second}, {&o.Skew, 2 * time.Second}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.Drop == nil {
		o.Drop = func(Reason, int) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Quiet = slices.Clone(o.Quiet)
	for i, m := range o.Quiet {
		o.Quiet[i] = m[strings.LastIndexByte(m, '/')+1:]
	}
}
