package helpers

import (
	"cmp"
	"fmt"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/procevents"
)

// helper is a program that an inner shim executes on the host.
type helper struct {
	procevents.Report
	span    trace.Span
	parent  trace.SpanContext
	call    *call   // that caused it; nil: none did
	above   *helper // that has begun it; nil: the inner shim
	at, end time.Time
	over    bool
	lost    bool // its end was not seen
	// replaced: it has executed another program, which has a span of its own.
	replaced bool
	keep     bool // something below it is recorded
	status   status
}

// status is a wait status.
type status uint32

// signal returns the signal that ended the process, 0 if none did.
func (s status) signal() int { return int(s & 0x7f) }

// code returns the exit code.
func (s status) code() int { return int(s >> 8 & 0xff) }

// is reports whether another report may be of the same process.
func (h *helper) is(r procevents.Report) bool {
	return h.Start == 0 || r.Start == 0 || h.Start == r.Start
}

// name returns the span's name.
func (h *helper) name() string {
	name := cmp.Or(h.Program, names.UnknownProgram)
	if h.Subcommand != "" {
		name += " " + h.Subcommand
	}
	return name
}

// failed reports whether the helper has ended with an error.
func (h *helper) failed() bool { return h.over && h.status != 0 }

func (h *helper) attributes() []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.ProcessExecutableName(cmp.Or(h.Program, names.UnknownProgram)), semconv.ProcessPID(h.PID)}
	if h.Role != "" {
		attrs = append(attrs, attribute.String(names.ProcessRole, string(h.Role)))
	}
	if h.Subcommand != "" {
		attrs = append(attrs, attribute.String(names.ProcessSubcommand, h.Subcommand))
	}
	if h.CPU > 0 {
		attrs = append(attrs, attribute.Int64(names.ProcessCPUTime, int64(h.CPU)))
	}
	switch {
	case h.replaced:
	case h.lost:
		attrs = append(attrs, attribute.Bool(names.ProcessEventsLost, true))
	case h.status.signal() != 0:
		attrs = append(attrs, attribute.Int(names.Signal, h.status.signal()))
	default:
		attrs = append(attrs, semconv.ProcessExitCode(h.status.code()))
	}
	return attrs
}

// setStatus marks the span of a helper that has failed. It is an error if the helper's call
// failed as well; otherwise whoever executed the helper took its failure for an answer.
func (h *helper) setStatus() {
	if !h.failed() {
		return
	}
	text, kind := fmt.Sprintf("exit status %d", h.status.code()), "exit_status"
	if n := h.status.signal(); n != 0 {
		text, kind = "signal: "+syscall.Signal(n).String(), "signal"
	}
	if h.call == nil || !h.call.failed {
		h.span.SetAttributes(attribute.Bool(names.Expected, true), attribute.String(names.ExpectedMessage, text))
		return
	}
	h.span.SetAttributes(semconv.ErrorTypeKey.String(kind))
	h.span.SetStatus(codes.Error, text)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
