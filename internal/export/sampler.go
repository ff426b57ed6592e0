package export

import (
	"context"
	"strings"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
)

// newSampler returns the sampler of the configured name. Names that the configuration
// does not allow sample everything.
func newSampler(cfg config.Trace) sdktrace.Sampler {
	name, parentBased := strings.CutPrefix(cfg.Sampler, "parentbased_")
	var s sdktrace.Sampler
	switch name {
	case "always_off":
		s = sdktrace.NeverSample()
	case "traceidratio":
		s = sdktrace.TraceIDRatioBased(cfg.SamplerArg)
	default:
		s = sdktrace.AlwaysSample()
	}
	if parentBased {
		s = sdktrace.ParentBased(s)
	}
	return s
}

// NewRoot reserves a trace and its root span, and decides whether they are sampled. It
// is called once per trace. Every process that records part of the trace takes the
// decision from the context's flags; starting the root itself, in [ContextWithIDs],
// leads to the same decision.
func NewRoot(ctx context.Context, cfg config.Trace) trace.SpanContext {
	id := newTraceID()
	var flags trace.TraceFlags
	decision := newSampler(cfg).ShouldSample(sdktrace.SamplingParameters{ParentContext: ctx, TraceID: id}).Decision
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    id,
		SpanID:     newSpanID(),
		TraceFlags: flags.WithSampled(decision == sdktrace.RecordAndSample),
	})
}
