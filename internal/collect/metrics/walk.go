package metrics

import (
	"time"

	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
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
	fields(data, func(n protowire.Number, rs []byte) {
		if n != otlpwire.DataResourceSpans {
			return
		}
		var resource []byte
		fields(rs, func(n protowire.Number, b []byte) {
			switch n {
			case otlpwire.ResourceSpansResource:
				resource = b
			case otlpwire.ResourceSpansScopes:
				walkScope(resource, b, spans, started)
			}
		})
	})
}

func walkScope(resource, scope []byte, spans func(origin string, n int), started func(start)) {
	origin, own, count := originShim, false, 0
	fields(scope, func(n protowire.Number, b []byte) {
		switch n {
		case otlpwire.ScopeSpansScope:
			fields(b, func(n protowire.Number, name []byte) {
				if n != otlpwire.ScopeName {
					return
				}
				switch string(name) {
				case names.AgentScope:
					origin = originAgent
				case names.RuntimeScope:
					origin = originRuntime
				case names.ShimScope:
					own = true
				}
			})
		case otlpwire.ScopeSpansSpans:
			count++
			if own && isStart(b) {
				if s, ok := startOf(resource, b); ok {
					started(s)
				}
			}
		}
	})
	spans(origin, count)
}

func isStart(span []byte) (is bool) {
	fields(span, func(n protowire.Number, b []byte) {
		is = is || n == otlpwire.SpanName && string(b) == names.SandboxStart
	})
	return is
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

// fields calls fn with each field of a message that has a length, until one is malformed.
func fields(b []byte, fn func(protowire.Number, []byte)) {
	for len(b) > 0 {
		n, typ, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			return
		}
		b = b[tag:]
		if typ != protowire.BytesType {
			size := protowire.ConsumeFieldValue(n, typ, b)
			if size < 0 {
				return
			}
			b = b[size:]
			continue
		}
		v, size := protowire.ConsumeBytes(b)
		if size < 0 {
			return
		}
		fn(n, v)
		b = b[size:]
	}
}
