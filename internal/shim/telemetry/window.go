package telemetry

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// Turner is who turns tracing on or off.
type Turner struct {
	Name string // as they say
	UID  int    // as the kernel says
}

// Why a window ends; values of shimtrace.switched_off.reason.
const (
	ReasonCommand = "command"
	ReasonTime    = "time is over"
	ReasonSandbox = "sandbox ended"
	ReasonRelay   = "relay died"
	// ReasonConfiguration: trace.mode was changed.
	ReasonConfiguration = "configuration"
)

// attributes names who switched, if anybody did.
func (t Turner) attributes() []attribute.KeyValue {
	if t.Name == "" {
		return nil
	}
	return []attribute.KeyValue{semconv.UserName(t.Name), semconv.UserID(uidText(t.UID))}
}

// EmitSwitchedOn makes the root span of a window. cause is what caused the pod, invalid
// if that is not known.
func EmitSwitchedOn(tracer trace.Tracer, w *state.Window, cause trace.SpanContext, by Turner, length time.Duration) {
	sc := w.Trace.SpanContext()
	if !sc.IsSampled() {
		return
	}
	attrs := by.attributes()
	if length > 0 {
		attrs = append(attrs, attribute.String(names.SwitchedOnFor, length.String()))
	}
	ctx := export.ContextWithSampled(context.Background(), sc.TraceID(), sc.SpanID())
	ctx, opts := above(ctx, sc, cause)
	_, span := tracer.Start(ctx, names.SwitchedOn, append(opts, trace.WithTimestamp(w.Began), trace.WithAttributes(attrs...))...)
	span.End(trace.WithTimestamp(w.Began))
}

// EmitSwitchedOff makes the span that ends a window.
func EmitSwitchedOff(tracer trace.Tracer, w *state.Window, at time.Time, by Turner, reason string) {
	sc := w.Trace.SpanContext()
	if !sc.IsSampled() {
		return
	}
	attrs := append(by.attributes(), attribute.String(names.SwitchedOffReason, reason))
	_, span := tracer.Start(Remote(sc), names.SwitchedOff, trace.WithTimestamp(at), trace.WithAttributes(attrs...))
	span.End(trace.WithTimestamp(at))
}

func uidText(uid int) string {
	if uid < 0 {
		return "unknown"
	}
	return strconv.Itoa(uid)
}
