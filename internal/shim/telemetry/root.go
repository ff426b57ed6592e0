package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
)

// NewRoot reserves the root span of a sandbox: in the trace of what caused the pod, or in
// one of its own, as for a call and its caller. cause is invalid if it is not known.
func NewRoot(cfg config.Trace, cause trace.SpanContext) trace.SpanContext {
	own := export.NewRoot(context.Background(), cfg)
	if cfg.Mode == "dynamic" || cfg.Join == "sandbox" || !cause.IsValid() || own.IsSampled() && !cause.IsSampled() {
		return own
	}
	return export.NewRoot(Remote(cause), cfg)
}

// RunOf returns the id of a sandbox's run with that root and cause, which no other run has.
// It is the trace's id, unless the trace is the cause's and other runs may be in it.
func RunOf(root, cause trace.SpanContext) trace.TraceID {
	run := root.TraceID()
	if run == cause.TraceID() {
		id := root.SpanID()
		copy(run[len(run)-len(id):], id[:])
	}
	return run
}

// above returns how a root span is started: below what caused the pod, or linked to it.
func above(ctx context.Context, root, cause trace.SpanContext) (context.Context, []trace.SpanStartOption) {
	switch {
	case cause.IsValid() && cause.TraceID() == root.TraceID():
		return trace.ContextWithRemoteSpanContext(ctx, cause), nil
	case cause.IsSampled():
		return ctx, []trace.SpanStartOption{trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: cause})}
	}
	return ctx, []trace.SpanStartOption{trace.WithNewRoot()}
}
