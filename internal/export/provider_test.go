package export

import (
	"context"
	"os"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
)

func TestReservedIDsAreUsedOnce(t *testing.T) {
	rec := tracetest.NewSpanRecorder()
	tp := NewTracerProvider(config.Default().Trace, resource.Empty(), rec)
	tr := tp.Tracer("test")
	root := NewRoot(t.Context(), config.Default().Trace)
	if !root.IsValid() || !root.IsSampled() {
		t.Fatalf("root: %+v", root)
	}
	ctx := ContextWithIDs(t.Context(), root.TraceID(), root.SpanID())
	ctx, span := tr.Start(ctx, "root")
	_, child := tr.Start(ctx, "child")
	_, other := tr.Start(ctx, "other", trace.WithNewRoot())
	if got := span.SpanContext(); got.TraceID() != root.TraceID() || got.SpanID() != root.SpanID() {
		t.Errorf("root has %v", got)
	}
	if got := child.SpanContext(); got.TraceID() != root.TraceID() || got.SpanID() == root.SpanID() {
		t.Errorf("child has %v", got)
	}
	if got := other.SpanContext(); got.TraceID() == root.TraceID() || got.SpanID() == root.SpanID() {
		t.Errorf("another root has %v", got)
	}
	// A child whose id was reserved.
	id := newSpanID()
	_, reserved := tr.Start(ContextWithIDs(ctx, root.TraceID(), id), "reserved child")
	if got := reserved.SpanContext().SpanID(); got != id {
		t.Errorf("reserved child has %v", got)
	}
}

func TestSamplingIsDecidedOnce(t *testing.T) {
	const n = 2000
	for _, tc := range []struct {
		sampler  string
		arg      float64
		min, max int
	}{
		{"always_on", 0, n, n},
		{"parentbased_always_on", 0, n, n},
		{"always_off", 1, 0, 0},
		{"parentbased_always_off", 1, 0, 0},
		{"traceidratio", 0.5, n / 3, 2 * n / 3},
		{"parentbased_traceidratio", 0.5, n / 3, 2 * n / 3},
	} {
		t.Run(tc.sampler, func(t *testing.T) {
			cfg := config.Default().Trace
			cfg.Sampler, cfg.SamplerArg = tc.sampler, tc.arg
			tr := NewTracerProvider(cfg, resource.Empty(), tracetest.NewSpanRecorder()).Tracer("test")
			sampled := 0
			for range n {
				root := NewRoot(t.Context(), cfg)
				if root.IsSampled() {
					sampled++
				}
				// The process that starts the root, and one that has a child of it.
				_, span := tr.Start(ContextWithIDs(t.Context(), root.TraceID(), root.SpanID()), "root")
				_, child := tr.Start(trace.ContextWithRemoteSpanContext(t.Context(), root), "child")
				if span.SpanContext().IsSampled() != root.IsSampled() || child.SpanContext().IsSampled() != root.IsSampled() {
					t.Fatalf("reserved %v, root %v, child %v", root.IsSampled(), span.SpanContext().IsSampled(), child.SpanContext().IsSampled())
				}
			}
			if sampled < tc.min || sampled > tc.max {
				t.Errorf("%d of %d", sampled, n)
			}
		})
	}
}

func TestResource(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "containerd")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "region=env,zone=env,service.name=containerd")
	cfg, _ := config.Load("", os.Getenv)
	cfg.Resource["rack"] = "file"
	res, err := NewResource(t.Context(), "containerd-shim-runc-v2", cfg.Resource,
		attribute.String("zone", "ours"))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{
		"service.name": "containerd-shim-runc-v2", "region": "env", "rack": "file", "zone": "ours",
	} {
		if v, _ := res.Set().Value(attribute.Key(k)); v.AsString() != want {
			t.Errorf("%s is %q, not %q", k, v.AsString(), want)
		}
	}
	if v, _ := res.Set().Value("host.name"); v.AsString() == "" {
		t.Error("no host.name")
	}
}

func TestSpansReachTheJournal(t *testing.T) {
	j, err := journal.Open(t.TempDir(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	e, err := otlptrace.New(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	tp := NewTracerProvider(config.Default().Trace, resource.Empty(), NewProcessor(e, ProcessorOptions{Delay: time.Millisecond, Losses: j.Losses(losses.Ours)}))
	ctx, root := tp.Tracer("test").Start(t.Context(), "root")
	_, child := tp.Tracer("test").Start(ctx, "child")
	child.End()
	root.End()
	if err := tp.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := 0
	if _, err := journal.Scan(j.Dir(), func(r journal.Record) error { spans += r.Spans; return nil }); err != nil {
		t.Fatal(err)
	}
	if spans != 2 {
		t.Errorf("%d spans in the journal", spans)
	}
}

func BenchmarkNewIDs(b *testing.B) {
	var g sdktrace.IDGenerator = idGenerator{}
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.NewIDs(ctx)
		}
	})
}
