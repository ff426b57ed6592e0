package telemetry

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/exporttest"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// TestRootOfACause: the sandbox's root is below what caused the pod, or linked to it, as
// a call is to its caller.
func TestRootOfACause(t *testing.T) {
	cause := func(sampled bool) trace.SpanContext {
		var flags trace.TraceFlags
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: flags.WithSampled(sampled), Remote: true})
	}
	for _, tt := range []struct {
		name           string
		change         func(*config.Trace)
		cause          trace.SpanContext
		joined, linked bool
	}{
		{"join caller", func(*config.Trace) {}, cause(true), true, false},
		{"join sandbox", func(c *config.Trace) { c.Join = "sandbox" }, cause(true), false, true},
		{"not sampled", func(*config.Trace) {}, cause(false), false, false},
		{"no cause", func(*config.Trace) {}, trace.SpanContext{}, false, false},
		{"sampled by the cause alone", func(c *config.Trace) { c.Sampler, c.SamplerArg = "parentbased_traceidratio", 0 }, cause(true), true, false},
		{"on demand", func(c *config.Trace) { c.Mode = "dynamic" }, cause(true), false, true},
	} {
		cfg := config.Default().Trace
		tt.change(&cfg)
		spans := new(exporttest.Recorder)
		tracer := export.NewTracerProvider(cfg, spans).Tracer(names.ShimScope)
		root := NewRoot(cfg, tt.cause)
		st := state.State{Trace: state.NewTraceContext(root), Cause: state.CauseContext(tt.cause), Started: time.Now()}
		EmitRoot(tracer, &st, time.Now(), "")
		all := spans.Ended()
		if len(all) != 1 {
			t.Fatalf("%s: %d spans", tt.name, len(all))
		}
		s := all[0]
		joined := s.Parent().SpanID() == tt.cause.SpanID() && s.SpanContext().TraceID() == tt.cause.TraceID() && tt.cause.IsValid()
		linked := len(s.Links()) == 1 && s.Links()[0].SpanContext.SpanID() == tt.cause.SpanID()
		if joined != tt.joined || linked != tt.linked || s.SpanContext().SpanID() != root.SpanID() {
			t.Errorf("%s: joined %t, linked %t", tt.name, joined, linked)
		}
		run, again := RunOf(root, tt.cause), RunOf(NewRoot(cfg, tt.cause), tt.cause)
		if run == again || !run.IsValid() {
			t.Errorf("%s: two runs are one: %s", tt.name, run)
		}
	}
}
