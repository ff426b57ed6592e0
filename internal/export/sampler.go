package export

import (
	"context"
	"encoding/binary"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
)

// sampler decides which traces are recorded, as OpenTelemetry's samplers do.
type sampler struct {
	parentBased bool
	below       uint64 // the ratio times 2^63, for comparison with half of a trace's id
	all         bool
}

// newSampler returns the sampler of the configured name. Names that the configuration
// does not allow sample everything.
func newSampler(cfg config.Trace) sampler {
	name, parentBased := strings.CutPrefix(cfg.Sampler, "parentbased_")
	s := sampler{parentBased: parentBased}
	switch name {
	case "always_off":
	case "traceidratio":
		if s.all = cfg.SamplerArg >= 1; !s.all && cfg.SamplerArg > 0 {
			s.below = uint64(cfg.SamplerArg * (1 << 63))
		}
	default:
		s.all = true
	}
	return s
}

// samples decides for a span in a trace, whose parent is invalid if it has none.
func (s sampler) samples(parent trace.SpanContext, id trace.TraceID) bool {
	if s.parentBased && parent.IsValid() {
		return parent.IsSampled()
	}
	// As the SDK's TraceIDRatioBased does, so that other processes decide the same.
	return s.all || binary.BigEndian.Uint64(id[8:])>>1 < s.below
}

// NewRoot reserves a trace and its root span, or a span in the trace of ctx's span if
// there is one, and decides whether they are sampled. It is called once per root. Every
// process that records part of the trace takes the decision from the context's flags. The
// root itself is started in [ContextWithSampled], if it is sampled.
func NewRoot(ctx context.Context, cfg config.Trace) trace.SpanContext {
	parent := trace.SpanContextFromContext(ctx)
	id := parent.TraceID()
	if !parent.IsValid() {
		id = newTraceID()
	}
	var flags trace.TraceFlags
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    id,
		SpanID:     newSpanID(),
		TraceFlags: flags.WithSampled(newSampler(cfg).samples(parent, id)),
	})
}
