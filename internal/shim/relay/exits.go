package relay

import (
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

// exited tells of the end of a process, once, however many wait for it.
func (s *sandbox) exited(c *middleware.Call) {
	at := c.ExitedAt
	if at.IsZero() {
		at = c.End
	}
	if s.told(c.ContainerID, c.ExecID, at) || !s.On() {
		return
	}
	name := names.ContainerExited
	attrs := append([]attribute.KeyValue{
		semconv.ContainerID(c.ContainerID),
		semconv.ProcessExitCode(int(c.ExitStatus)),
	}, s.Attributes(c.ContainerID)...)
	if c.ExecID != "" {
		name = names.ExecExited
		attrs = append(attrs, attribute.String(names.Exec, c.ExecID))
	}
	_, span := s.tracer.Start(telemetry.Remote(s.Root()), name, trace.WithTimestamp(at), trace.WithAttributes(attrs...))
	span.AddEvent(name, trace.WithTimestamp(at), trace.WithAttributes(semconv.ProcessExitCode(int(c.ExitStatus))))
	span.End(trace.WithTimestamp(at))
}

// told reports whether the exit has been told of before, and remembers it.
func (s *sandbox) told(id, execID string, at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ct := s.containers[id]
	if ct == nil {
		return false
	}
	if ct.exits[execID].Equal(at) {
		return true
	}
	if len(ct.exits) >= maxExits {
		clear(ct.exits)
	}
	ct.exits[execID] = at
	return false
}
