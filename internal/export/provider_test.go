package export_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/exporttest"
	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// encoded is a sink that decodes what it takes.
type encoded struct{ spans []*tracepb.Span }

func (e *encoded) Take(_ string, span export.Ended) {
	var all tracepb.ScopeSpans
	if err := proto.Unmarshal(span.AppendElement(nil), &all); err != nil {
		panic(err)
	}
	e.spans = append(e.spans, all.Spans...)
}

// client is what the SDK's exporter uploads to.
type client struct{ spans []*tracepb.Span }

func (*client) Start(context.Context) error { return nil }
func (*client) Stop(context.Context) error  { return nil }
func (c *client) UploadTraces(_ context.Context, all []*tracepb.ResourceSpans) error {
	for _, rs := range all {
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
	return nil
}

// counted are ids that repeat from one provider to the other.
type counted struct{ n uint64 }

func (c *counted) NewIDs(ctx context.Context) (id trace.TraceID, _ trace.SpanID) {
	c.n++
	binary.BigEndian.PutUint64(id[8:], c.n)
	return id, c.NewSpanID(ctx, id)
}

func (c *counted) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	c.n++
	binary.BigEndian.PutUint64(id[:], c.n)
	return id
}

// program is what FuzzAsSDK reads its input as.
type program []byte

func (p *program) next(n int) int {
	if len(*p) == 0 {
		return 0
	}
	b := (*p)[0]
	*p = (*p)[1:]
	return int(b) % n
}

func (p *program) text() string {
	return []string{"", "a", "b", "a\xffb", strings.Repeat("long", 2000), strings.Repeat("ü", 5000), "c", "d"}[p.next(8)]
}

func (p *program) attributes() (attrs []attribute.KeyValue) {
	for range p.next(5) {
		key := attribute.Key([]string{"", "a", "b", "a\xffb", "c"}[p.next(5)])
		switch p.next(8) {
		case 0:
			attrs = append(attrs, key.String(p.text()))
		case 1:
			attrs = append(attrs, key.Int(p.next(200)-100))
		case 2:
			attrs = append(attrs, key.Bool(p.next(2) == 1))
		case 3:
			attrs = append(attrs, key.Float64(float64(p.next(100))/7))
		case 4:
			attrs = append(attrs, key.StringSlice([]string{p.text(), p.text()}))
		case 5:
			attrs = append(attrs, key.Int64Slice([]int64{int64(p.next(9)), -1}))
		case 6:
			attrs = append(attrs, key.BoolSlice([]bool{true, false}))
		case 7:
			attrs = append(attrs, key.Float64Slice([]float64{1.5}))
		}
	}
	return attrs
}

var begun = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)

// run does to a tracer what the program says. with names the ids of each span.
func (p program) run(tracer trace.Tracer, with func(ctx context.Context, parent trace.SpanContext) context.Context) (contexts []trace.SpanContext) {
	state, _ := trace.ParseTraceState("vendor=1")
	outside := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{9, 15: 1}, SpanID: trace.SpanID{8}, TraceFlags: trace.TraceFlags(p.next(4)), TraceState: state, Remote: true})
	ctx := context.Background()
	if p.next(2) == 1 {
		ctx = trace.ContextWithRemoteSpanContext(ctx, outside)
	}
	for range 4 {
		opts := []trace.SpanStartOption{trace.WithTimestamp(begun), trace.WithSpanKind(trace.SpanKind(p.next(7))), trace.WithAttributes(p.attributes()...)}
		parent := trace.SpanContextFromContext(ctx)
		if p.next(5) == 1 {
			opts, parent = append(opts, trace.WithNewRoot()), trace.SpanContext{}
		}
		if p.next(3) == 1 {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: outside.WithTraceState(trace.TraceState{}), Attributes: p.attributes()}, trace.Link{}))
		}
		inner, s := tracer.Start(with(ctx, parent), p.text(), opts...)
		contexts = append(contexts, s.SpanContext())
		for range p.next(8) {
			switch p.next(7) {
			case 0, 1:
				s.SetAttributes(p.attributes()...)
			case 2:
				s.SetStatus(codes.Code(p.next(3)), p.text())
			case 3:
				s.AddEvent(p.text(), trace.WithTimestamp(begun), trace.WithAttributes(p.attributes()...))
			case 4:
				s.SetName(p.text())
			case 5:
				s.RecordError(errors.New("broken"), trace.WithTimestamp(begun))
			case 6:
				s.End(trace.WithTimestamp(begun.Add(time.Duration(p.next(9)) - 3)))
			}
		}
		s.End(trace.WithTimestamp(begun.Add(5)))
		s.SetName("too late")
		s.End()
		if p.next(2) == 1 {
			ctx = inner
		}
	}
	return contexts
}

var samplers = []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}

// sdkSampler is the SDK's sampler of a name.
func sdkSampler(name string, arg float64) (s sdktrace.Sampler) {
	name, based := strings.CutPrefix(name, "parentbased_")
	switch name {
	case "always_on":
		s = sdktrace.AlwaysSample()
	case "always_off":
		s = sdktrace.NeverSample()
	default:
		s = sdktrace.TraceIDRatioBased(arg)
	}
	if based {
		s = sdktrace.ParentBased(s)
	}
	return s
}

// FuzzAsSDK: whatever is done to a span, it becomes what OpenTelemetry's SDK makes of it.
func FuzzAsSDK(f *testing.F) {
	for i := range 200 {
		seed := make([]byte, 120)
		for at := range seed {
			seed[at] = byte((i + 3) * (at + 7) * (at + i + 11) >> 2)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		p := program(input)
		cfg := config.Default().Trace
		cfg.Sampler, cfg.SamplerArg = samplers[p.next(len(samplers))], float64(p.next(5))/4

		var want client
		exporter := otlptrace.NewUnstarted(&want)
		ids := &counted{}
		sdk := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter), sdktrace.WithSampler(sdkSampler(cfg.Sampler, cfg.SamplerArg)), sdktrace.WithIDGenerator(ids),
			sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
				AttributeValueLengthLimit: 4096, AttributeCountLimit: 128, EventCountLimit: 128, LinkCountLimit: 32, AttributePerEventCountLimit: 128, AttributePerLinkCountLimit: 128,
			}))
		wantContexts := p.run(sdk.Tracer("test"), func(ctx context.Context, _ trace.SpanContext) context.Context { return ctx })

		var got encoded
		same := &counted{}
		gotContexts := p.run(export.NewTracerProvider(cfg, &got).Tracer("test"), func(ctx context.Context, parent trace.SpanContext) context.Context {
			if !parent.TraceID().IsValid() {
				return export.ContextWithIDs(ctx, first(same.NewIDs(ctx)), same.last())
			}
			return export.ContextWithIDs(ctx, parent.TraceID(), same.NewSpanID(ctx, parent.TraceID()))
		})
		for i, sc := range wantContexts {
			if !gotContexts[i].Equal(sc) {
				t.Errorf("span %d goes on with %+v, the SDK's with %+v", i, gotContexts[i], sc)
			}
		}
		if len(got.spans) != len(want.spans) {
			t.Fatalf("%d spans, the SDK has %d", len(got.spans), len(want.spans))
		}
		for i, s := range want.spans {
			evenOut(s)
			evenOut(got.spans[i])
			if !proto.Equal(s, got.spans[i]) {
				t.Errorf("span %d is\n%s\nthe SDK's\n%s", i, brief(got.spans[i]), brief(s))
			}
		}
	})
}

// brief is a span as a text a person can read.
func brief(s *tracepb.Span) string {
	return strings.NewReplacer(strings.Repeat("long", 100), "…", strings.Repeat("ü", 100), "…").Replace(s.String())
}

func first[A, B any](a A, _ B) A { return a }

func (c *counted) last() (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], c.n)
	return id
}

// evenOut evens out what means the same, no status and an empty one, and what the SDK leaves
// to whoever sends its spans: texts that are no UTF-8, or too long in events and links.
func evenOut(s *tracepb.Span) {
	if proto.Size(s.Status) == 0 {
		s.Status = nil
	}
	mend := func(text *string) { *text = strings.ToValidUTF8(*text, "\uFFFD") }
	mend(&s.Name)
	if s.Status != nil {
		mend(&s.Status.Message)
	}
	mendAttributes(s.Attributes)
	for _, e := range s.Events {
		mend(&e.Name)
		mendAttributes(e.Attributes)
	}
	for _, l := range s.Links {
		mendAttributes(l.Attributes)
	}
}

func mendAttributes(all []*commonpb.KeyValue) {
	for _, kv := range all {
		kv.Key = strings.ToValidUTF8(kv.Key, "\uFFFD")
		mendValue(kv.Value)
	}
}

func mendValue(v *commonpb.AnyValue) {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		v.StringValue = strings.ToValidUTF8(v.StringValue, "\uFFFD")
		if r := []rune(v.StringValue); len(r) > 4096 {
			v.StringValue = string(r[:4096])
		}
	case *commonpb.AnyValue_ArrayValue:
		for _, e := range v.ArrayValue.Values {
			mendValue(e)
		}
	}
}

// TestLimits: what is too much of one span is left out, and counted in it.
func TestLimits(t *testing.T) {
	rec := new(exporttest.Recorder)
	_, s := export.NewTracerProvider(config.Default().Trace, rec).Tracer("test").Start(t.Context(), "large")
	for i := range 200 {
		s.SetAttributes(attribute.Int(fmt.Sprint(i), i), attribute.Int("0", i), attribute.KeyValue{})
		s.AddEvent("event")
		s.AddLink(trace.Link{SpanContext: s.SpanContext()})
	}
	s.End()
	got := rec.Ended()[0]
	if a := got.Attributes(); len(a) != 128 || a[0].Value.AsInt64() != 199 || got.DroppedAttributes() != 200-128+200 {
		t.Errorf("%d attributes, the first is %v, %d dropped", len(a), a[0], got.DroppedAttributes())
	}
	if n, dropped := len(got.Events()), got.DroppedEvents(); n != 128 || dropped != 200-128 {
		t.Errorf("%d events, %d dropped", n, dropped)
	}
	if n, dropped := len(got.Links()), got.DroppedLinks(); n != 32 || dropped != 200-32 {
		t.Errorf("%d links, %d dropped", n, dropped)
	}
}

func TestReservedIDsAreUsedOnce(t *testing.T) {
	tr := export.NewTracerProvider(config.Default().Trace, new(exporttest.Nowhere)).Tracer("test")
	root := export.NewRoot(t.Context(), config.Default().Trace)
	if !root.IsValid() || !root.IsSampled() {
		t.Fatalf("root: %+v", root)
	}
	ctx := export.ContextWithIDs(t.Context(), root.TraceID(), root.SpanID())
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
	id := trace.SpanID{7}
	_, reserved := tr.Start(export.ContextWithIDs(ctx, root.TraceID(), id), "reserved child")
	if got := reserved.SpanContext().SpanID(); got != id {
		t.Errorf("reserved child has %v", got)
	}
	// One that was reserved for another trace.
	_, strange := tr.Start(export.ContextWithIDs(ctx, trace.TraceID{1}, id), "child")
	if got := strange.SpanContext(); got.TraceID() != root.TraceID() || got.SpanID() == id {
		t.Errorf("a child in another trace has %v", got)
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
			tr := export.NewTracerProvider(cfg, new(exporttest.Nowhere)).Tracer("test")
			sampled := 0
			for range n {
				root := export.NewRoot(t.Context(), cfg)
				if root.IsSampled() {
					sampled++
				}
				// The process that starts the root, and one that has a child of it.
				_, span := tr.Start(export.ContextWithIDs(t.Context(), root.TraceID(), root.SpanID()), "root")
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
	got := map[string]string{}
	for _, kv := range export.NewResource("containerd-shim-runc-v2", cfg.Resource, attribute.String("zone", "ours")).Attributes {
		if _, twice := got[kv.Key]; twice {
			t.Errorf("%s is there twice", kv.Key)
		}
		got[kv.Key] = kv.Value.GetStringValue()
	}
	for k, want := range map[string]string{
		"service.name": "containerd-shim-runc-v2", "region": "env", "rack": "file", "zone": "ours",
	} {
		if got[k] != want {
			t.Errorf("%s is %q, not %q", k, got[k], want)
		}
	}
	if got["host.name"] == "" {
		t.Error("no host.name")
	}
}

func TestSpansReachTheJournal(t *testing.T) {
	j, err := journal.Open(t.TempDir(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	q := export.NewQueue(j)
	q.Resource = export.NewResource("test", nil)
	tp := export.NewTracerProvider(config.Default().Trace, q)
	ctx, root := tp.Tracer("test").Start(t.Context(), "root")
	_, child := tp.Tracer("another").Start(ctx, "child")
	child.End()
	root.End()
	if err := q.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var names []string
	if _, err := journal.Scan(j.Dir(), func(r journal.Record) error {
		td, err := r.Traces()
		for _, rs := range td.GetResourceSpans() {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					names = append(names, ss.Scope.Name+" "+s.Name)
				}
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(names) != "[another child test root]" {
		t.Errorf("spans in the journal: %q", names)
	}
}

// BenchmarkSpan is a call's span from its start to the queue, and the same by the SDK into
// nothing.
func BenchmarkSpan(b *testing.B) {
	for name, tracer := range map[string]trace.Tracer{
		"ours": export.NewTracerProvider(config.Default().Trace, new(exporttest.Nowhere)).Tracer("test"),
		"sdk":  sdktrace.NewTracerProvider(sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{AttributeValueLengthLimit: 4096, AttributeCountLimit: 128, EventCountLimit: 128, LinkCountLimit: 32})).Tracer("test"),
	} {
		b.Run(name, func(b *testing.B) {
			ctx := trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled}))
			static := trace.WithAttributes(attribute.String("rpc.system.name", "ttrpc"), attribute.String("rpc.method", "containerd.task.v3.Task/State"))
			b.ReportAllocs()
			for b.Loop() {
				_, s := tracer.Start(ctx, "containerd.task.v3.Task/State", trace.WithTimestamp(begun), trace.WithSpanKind(trace.SpanKindServer), static)
				s.SetAttributes(attribute.String("rpc.response.status_code", "OK"), attribute.String("container.id", "box"), attribute.Int("process.pid", 42))
				s.End(trace.WithTimestamp(begun))
			}
		})
	}
}
