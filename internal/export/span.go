package export

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// Limits of one span. Requests contain texts of any length from containers and their
// images, but a person is to read the span. What goes beyond is left out and counted in the
// span.
const (
	maxValueLen   = 4 << 10 // characters
	maxAttributes = 128     // of a span, an event or a link
	maxEvents     = 128
	maxLinks      = 32

	spareAttributes = 6 // that are made room for when a span gets more than it began with
)

// span is one that is recorded.
type span struct {
	embedded.Span
	tracer         *tracer
	context        trace.SpanContext
	parent         trace.SpanID
	parentIsRemote bool
	kind           trace.SpanKind
	start          time.Time

	mu                sync.Mutex
	end               time.Time // zero: it has not ended
	name              string
	status            codes.Code
	description       string
	attributes        []attribute.KeyValue // a key that repeats has its last value
	droppedAttributes int
	more              []byte // events and links, encoded
	events, links     int
}

var _ trace.Span = (*span)(nil)

// SpanContext implements [trace.Span].
func (s *span) SpanContext() trace.SpanContext { return s.context }

// TracerProvider implements [trace.Span].
func (s *span) TracerProvider() trace.TracerProvider { return s.tracer.provider }

// IsRecording implements [trace.Span].
func (s *span) IsRecording() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end.IsZero()
}

// change calls f unless the span has ended.
func (s *span) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.IsZero() {
		f()
	}
}

// SetName implements [trace.Span].
func (s *span) SetName(name string) { s.change(func() { s.name = name }) }

// SetStatus implements [trace.Span]: OK is final, and an error is not unset.
func (s *span) SetStatus(code codes.Code, description string) {
	s.change(func() {
		if s.status > code {
			return
		}
		if s.status = code; code != codes.Error {
			description = ""
		}
		s.description = description
	})
}

// SetAttributes implements [trace.Span].
func (s *span) SetAttributes(attrs ...attribute.KeyValue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.end.IsZero() {
		return
	}
	if len(s.attributes)+len(attrs) <= maxAttributes && !slices.ContainsFunc(attrs, invalid) {
		// What is set at the end comes in two parts, as a rule. A span that is dropped before
		// has nothing to grow.
		if len(s.attributes)+len(attrs) > cap(s.attributes) && len(s.attributes) > 0 {
			s.attributes = slices.Grow(s.attributes, len(attrs)+spareAttributes)
		}
		s.attributes = append(s.attributes, attrs...)
		return
	}
	for _, a := range attrs {
		if invalid(a) {
			s.droppedAttributes++
			continue
		}
		if len(s.attributes) == maxAttributes {
			s.attributes = lastOfEach(s.attributes)
		}
		if len(s.attributes) < maxAttributes {
			s.attributes = append(s.attributes, a)
		} else if at := slices.IndexFunc(s.attributes, func(have attribute.KeyValue) bool { return have.Key == a.Key }); at >= 0 {
			s.attributes[at] = a
		} else {
			s.droppedAttributes++
		}
	}
}

func invalid(a attribute.KeyValue) bool { return !a.Valid() }

// lastOfEach leaves of each key the last value, where the key was first.
func lastOfEach(attrs []attribute.KeyValue) []attribute.KeyValue {
	kept := attrs[:0]
next:
	for _, a := range attrs {
		for i := range kept {
			if kept[i].Key == a.Key {
				kept[i] = a
				continue next
			}
		}
		kept = append(kept, a)
	}
	return kept
}

// AddEvent implements [trace.Span].
func (s *span) AddEvent(name string, opts ...trace.EventOption) {
	s.change(func() {
		if s.events++; s.events > maxEvents {
			return
		}
		cfg := trace.NewEventConfig(opts...)
		b, at := otlpwire.Open(s.more, otlpwire.SpanEvents)
		b = otlpwire.AppendFixed64(b, otlpwire.EventTime, nanoseconds(cfg.Timestamp()))
		b = otlpwire.AppendText(b, otlpwire.EventName, name)
		b = appendBounded(b, otlpwire.EventAttributes, otlpwire.EventDroppedAttributes, cfg.Attributes())
		s.more = otlpwire.Close(b, at)
	})
}

// RecordError implements [trace.Span].
func (s *span) RecordError(err error, opts ...trace.EventOption) {
	if err == nil {
		return
	}
	s.AddEvent(semconv.ExceptionEventName, append(opts, trace.WithAttributes(
		semconv.ExceptionType(fmt.Sprintf("%T", err)), semconv.ExceptionMessage(err.Error())))...)
}

// AddLink implements [trace.Span].
func (s *span) AddLink(link trace.Link) {
	sc := link.SpanContext
	if !sc.IsValid() && len(link.Attributes) == 0 && sc.TraceState().Len() == 0 {
		return
	}
	s.change(func() {
		if s.links++; s.links > maxLinks {
			return
		}
		traceID, spanID := sc.TraceID(), sc.SpanID()
		b, at := otlpwire.Open(s.more, otlpwire.SpanLinks)
		b = otlpwire.AppendBytes(b, otlpwire.LinkTraceID, traceID[:])
		b = otlpwire.AppendBytes(b, otlpwire.LinkSpanID, spanID[:])
		b = appendBounded(b, otlpwire.LinkAttributes, otlpwire.LinkDroppedAttributes, link.Attributes)
		b = otlpwire.AppendFixed32(b, otlpwire.LinkFlags, flags(sc.TraceFlags(), sc.IsRemote()))
		s.more = otlpwire.Close(b, at)
	})
}

// End implements [trace.Span].
func (s *span) End(opts ...trace.SpanEndOption) {
	now := s.start.Add(time.Since(s.start)) // also if the host's clock was set meanwhile
	s.mu.Lock()
	if !s.end.IsZero() {
		s.mu.Unlock()
		return
	}
	if len(opts) > 0 {
		if cfg := trace.NewSpanEndConfig(opts...); !cfg.Timestamp().IsZero() {
			now = cfg.Timestamp()
		}
	}
	s.end = now
	s.mu.Unlock()
	s.tracer.provider.sink.Take(s.tracer.scope, s) // nothing changes it any more
}
