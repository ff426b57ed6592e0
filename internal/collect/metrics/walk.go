package metrics

import (
	"time"

	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// Origins of spans.
const (
	originShim    = "shim" // shimtrace's own
	originAgent   = "agent"
	originRuntime = "runtime"
	originProgram = "program" // posted by another program of the host
)

// start is the start of a sandbox.
type start struct {
	took    time.Duration
	ended   time.Time
	trace   trace.TraceID
	span    trace.SpanID
	runtime string
	failed  bool
}

// walk reads a record of traces, and decodes nothing but the starts of sandboxes. It calls
// spans with the number of spans of each origin. What is not OTLP ends it.
func walk(data []byte, spans func(origin string, n int), started func(start)) {
	for f := protofields.Of(data); f.Next(); {
		if !f.Is(otlpwire.DataResourceSpans) {
			continue
		}
		resource := protofields.Last(f.Bytes, otlpwire.ResourceSpansResource)
		for scopes := protofields.Of(f.Bytes); scopes.Next(); {
			if scopes.Is(otlpwire.ResourceSpansScopes) {
				walkScope(resource, scopes.Bytes, spans, started)
			}
		}
	}
}

func walkScope(resource, scope []byte, spans func(origin string, n int), started func(start)) {
	origin, own, count := originShim, false, 0
	switch string(protofields.Last(protofields.Last(scope, otlpwire.ScopeSpansScope), otlpwire.ScopeName)) {
	case names.AgentScope:
		origin = originAgent
	case names.RuntimeScope:
		origin = originRuntime
	case names.ShimScope:
		own = true
	}
	for f := protofields.Of(scope); f.Next(); {
		if !f.Is(otlpwire.ScopeSpansSpans) {
			continue
		}
		count++
		if own && string(protofields.Last(f.Bytes, otlpwire.SpanName)) == names.SandboxStart {
			if s, ok := startOf(resource, f.Bytes); ok {
				started(s)
			}
		}
	}
	spans(origin, count)
}

// startOf decodes a span that is the start of a sandbox.
func startOf(resource, span []byte) (s start, ok bool) {
	var r resourcepb.Resource
	var sp tracepb.Span
	if proto.Unmarshal(resource, &r) != nil || proto.Unmarshal(span, &sp) != nil || len(sp.TraceId) != len(s.trace) || len(sp.SpanId) != len(s.span) ||
		sp.EndTimeUnixNano < sp.StartTimeUnixNano {
		return s, false
	}
	s.trace, s.span = trace.TraceID(sp.TraceId), trace.SpanID(sp.SpanId)
	s.took = time.Duration(sp.EndTimeUnixNano - sp.StartTimeUnixNano)
	s.ended = time.Unix(0, int64(sp.EndTimeUnixNano))
	s.failed = sp.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR
	if s.runtime = text(r.Attributes, names.Runtime); s.runtime == "" {
		s.runtime = text(r.Attributes, names.Service)
	}
	return s, true
}

func text(attrs []*commonpb.KeyValue, key string) string {
	for _, a := range attrs {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}
