package telemetry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

// TestCorrelate: a line names the trace that is current when it is written, or that of its
// own call; none that is not recorded.
func TestCorrelate(t *testing.T) {
	context := func(id byte, flags trace.TraceFlags) trace.SpanContext {
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{id}, SpanID: trace.SpanID{id}, TraceFlags: flags})
	}
	var out bytes.Buffer
	line := func(log func()) string {
		out.Reset()
		log()
		return out.String()
	}
	log, c := Correlate(slog.New(slog.NewTextHandler(&out, nil)).With("component", "shimtrace"))
	log = log.With("more", 1)
	if got := line(func() { log.Warn("x") }); strings.Contains(got, "trace_id") {
		t.Errorf("before any trace: %s", got)
	}
	now := context(1, trace.FlagsSampled)
	c.To(func() trace.SpanContext { return now })
	const first, second = "trace_id=01000000000000000000000000000000 span_id=0100000000000000\n", "trace_id=02000000000000000000000000000000 span_id=0200000000000000\n"
	if got := line(func() { log.Warn("x", "error", "y") }); !strings.HasSuffix(got, "component=shimtrace more=1 error=y "+first) {
		t.Errorf("got %s", got)
	}
	if got := line(func() { log.WarnContext(Remote(context(2, trace.FlagsSampled)), "x") }); !strings.HasSuffix(got, second) {
		t.Errorf("of a call: %s", got)
	}
	if got := line(func() { log.WarnContext(Remote(context(2, 0)), "x") }); !strings.HasSuffix(got, first) {
		t.Errorf("of a call that is not recorded: %s", got)
	}
	now = context(3, 0)
	if got := line(func() { log.Warn("x") }); strings.Contains(got, "trace_id") {
		t.Errorf("of a trace that is not recorded: %s", got)
	}
}
