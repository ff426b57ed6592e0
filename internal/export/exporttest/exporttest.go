// Package exporttest records the spans of package export's provider for tests, as
// OpenTelemetry's tracetest does those of its SDK: what is recorded is what the journal
// would have.
package exporttest

import (
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/export"
)

// Nowhere is a sink that encodes what it takes, and keeps nothing.
type Nowhere struct {
	mu  sync.Mutex
	buf []byte
}

var _ export.Sink = (*Nowhere)(nil)

// Take implements [export.Sink].
func (n *Nowhere) Take(_ string, span export.Ended) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.buf = span.AppendElement(n.buf[:0])
}

// Recorder is a sink that keeps what it takes. The zero value is ready.
type Recorder struct {
	mu    sync.Mutex
	spans []sdktrace.ReadOnlySpan
}

var _ export.Sink = (*Recorder)(nil)

// Take implements [export.Sink].
func (r *Recorder) Take(scope string, span export.Ended) {
	var all tracepb.ScopeSpans
	if err := proto.Unmarshal(span.AppendElement(nil), &all); err != nil || len(all.Spans) != 1 {
		panic("a span is not OTLP")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, stub(scope, all.Spans[0]))
}

// Ended returns the spans that have ended, in that order.
func (r *Recorder) Ended() []sdktrace.ReadOnlySpan {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// stub returns an OTLP span in the SDK's form.
func stub(scope string, s *tracepb.Span) sdktrace.ReadOnlySpan {
	stub := tracetest.SpanStub{
		Name:                 s.Name,
		SpanContext:          contextOf(s.TraceId, s.SpanId, s.Flags, s.TraceState, false),
		SpanKind:             trace.SpanKind(s.Kind),
		StartTime:            time.Unix(0, int64(s.StartTimeUnixNano)),
		EndTime:              time.Unix(0, int64(s.EndTimeUnixNano)),
		Attributes:           attributes(s.Attributes),
		Status:               sdktrace.Status{Description: s.GetStatus().GetMessage()},
		DroppedAttributes:    int(s.DroppedAttributesCount),
		DroppedEvents:        int(s.DroppedEventsCount),
		DroppedLinks:         int(s.DroppedLinksCount),
		InstrumentationScope: instrumentation.Scope{Name: scope},
	}
	if len(s.ParentSpanId) > 0 {
		stub.Parent = contextOf(s.TraceId, s.ParentSpanId, s.Flags, s.TraceState, s.Flags&uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK) != 0)
	}
	switch s.GetStatus().GetCode() {
	case tracepb.Status_STATUS_CODE_OK:
		stub.Status.Code = codes.Ok
	case tracepb.Status_STATUS_CODE_ERROR:
		stub.Status.Code = codes.Error
	}
	for _, e := range s.Events {
		stub.Events = append(stub.Events, sdktrace.Event{Name: e.Name, Time: time.Unix(0, int64(e.TimeUnixNano)), Attributes: attributes(e.Attributes), DroppedAttributeCount: int(e.DroppedAttributesCount)})
	}
	for _, l := range s.Links {
		stub.Links = append(stub.Links, sdktrace.Link{
			SpanContext: contextOf(l.TraceId, l.SpanId, l.Flags, l.TraceState, l.Flags&uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK) != 0),
			Attributes:  attributes(l.Attributes), DroppedAttributeCount: int(l.DroppedAttributesCount),
		})
	}
	return stub.Snapshot()
}

func contextOf(traceID, spanID []byte, flags uint32, state string, remote bool) trace.SpanContext {
	cfg := trace.SpanContextConfig{TraceFlags: trace.TraceFlags(flags), Remote: remote}
	copy(cfg.TraceID[:], traceID)
	copy(cfg.SpanID[:], spanID)
	cfg.TraceState, _ = trace.ParseTraceState(state)
	return trace.NewSpanContext(cfg)
}

func attributes(all []*commonpb.KeyValue) (attrs []attribute.KeyValue) {
	for _, kv := range all {
		attrs = append(attrs, attribute.KeyValue{Key: attribute.Key(kv.Key), Value: value(kv.Value)})
	}
	return attrs
}

func value(v *commonpb.AnyValue) attribute.Value {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return attribute.StringValue(v.StringValue)
	case *commonpb.AnyValue_BoolValue:
		return attribute.BoolValue(v.BoolValue)
	case *commonpb.AnyValue_IntValue:
		return attribute.Int64Value(v.IntValue)
	case *commonpb.AnyValue_DoubleValue:
		return attribute.Float64Value(v.DoubleValue)
	case *commonpb.AnyValue_ArrayValue:
		texts := []string{}
		for _, e := range v.ArrayValue.Values {
			texts = append(texts, e.GetStringValue())
		}
		return attribute.StringSliceValue(texts)
	}
	return attribute.Value{}
}
