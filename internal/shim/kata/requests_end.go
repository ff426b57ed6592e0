package kata

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
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
		attribute.String(names.ConnectionEndedBy, by),
		attribute.Int64(names.ConnectionRequests, int64(e.Requests)),
		attribute.Int(names.ConnectionUnanswered, e.Unanswered),
	}
	if e.Last != "" {
		attrs = append(attrs, attribute.String(names.ConnectionLastRequest, e.Last))
	}
	if e.Err != nil {
		attrs = append(attrs, attribute.String(names.ConnectionError, e.Err.Error()))
	}
	_, span := r.tracer.Start(telemetry.Remote(r.sandbox.Root()), names.ConnectionEnded, trace.WithTimestamp(e.At), trace.WithAttributes(attrs...))
	if e.Unanswered > 0 {
		span.SetAttributes(semconv.ErrorTypeKey.String("connection_closed"))
		span.SetStatus(codes.Error, "the "+by+" ended the connection before all was answered")
	}
	span.AddEvent(names.ConnectionEnded, trace.WithTimestamp(e.At))
	span.End(trace.WithTimestamp(e.At))
}
