package kata

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

// Attributes of the end of a connection to the agent.
const (
	endedByKey     = attribute.Key("shimtrace.agent.connection.ended_by") // "runtime" or "agent"
	endErrorKey    = attribute.Key("shimtrace.agent.connection.error")    // absent: it ended in order
	lastRequestKey = attribute.Key("shimtrace.agent.connection.last_request")
	requestsKey    = attribute.Key("shimtrace.agent.connection.requests")
	unansweredKey  = attribute.Key("shimtrace.agent.connection.unanswered")
)

// connectionEnded tells of the end of a connection from the runtime to the agent: when
// the two lose each other, it says who let go of whom.
func (r *requests) connectionEnded(e middleware.End) {
	if !r.sandbox.On() {
		return
	}
	by := "runtime"
	if e.By == middleware.Server {
		by = "agent"
	}
	attrs := []attribute.KeyValue{
		endedByKey.String(by),
		requestsKey.Int64(int64(e.Requests)),
		unansweredKey.Int(e.Unanswered),
	}
	if e.Last != "" {
		attrs = append(attrs, lastRequestKey.String(e.Last))
	}
	if e.Err != nil {
		attrs = append(attrs, endErrorKey.String(e.Err.Error()))
	}
	_, span := r.tracer.Start(telemetry.Remote(r.sandbox.Root()), telemetry.SpanConnectionEnded, trace.WithTimestamp(e.At), trace.WithAttributes(attrs...))
	if e.Unanswered > 0 {
		span.SetAttributes(semconv.ErrorTypeKey.String("connection_closed"))
		span.SetStatus(codes.Error, "the "+by+" ended the connection before all was answered")
	}
	span.AddEvent(telemetry.SpanConnectionEnded, trace.WithTimestamp(e.At))
	span.End(trace.WithTimestamp(e.At))
}
