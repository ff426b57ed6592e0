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
	first             []attribute.KeyValue // those that it began with; other spans may share them
	attributes        []attribute.KeyValue // those set since; a key's last value counts
	room              *[roomForAttributes]attribute.KeyValue
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
	if !s.end.IsZero() || len(attrs) == 0 {
		return
	}
	if s.room == nil {
		s.room = rooms.Get().(*[roomForAttributes]attribute.KeyValue)
		s.attributes = s.room[:0]
	}
	if len(s.first)+len(s.attributes)+len(attrs) <= maxAttributes && allowed(attrs) {
		s.attributes = append(s.attributes, attrs...)
		return
	}
	s.first, s.attributes = nil, slices.Concat(s.first, s.attributes)
	for _, a := range attrs {
		s.setAttribute(a)
	}
}

// setAttribute sets an attribute that may be one too many, or invalid.
func (s *span) setAttribute(a attribute.KeyValue) {
	if invalid(a) {
		s.droppedAttributes++
		return
	}
	if len(s.attributes) == maxAttributes {
		s.attributes = lastOfEach(s.attributes)
	}
	if len(s.attributes) < maxAttributes {
		s.attributes = append(s.attributes, a)
	} else if at := indexOf(s.attributes, a.Key); at >= 0 {
		s.attributes[at] = a
	} else {
		s.droppedAttributes++
	}
}

// rooms holds memory for the attributes of spans. A span that has ended gives its memory back.
var rooms = sync.Pool{New: func() any { return new([roomForAttributes]attribute.KeyValue) }}

const roomForAttributes = 8 // as many as a call's span gets, as a rule

func (s *span) freeAttributes() {
	s.first, s.attributes = nil, nil
	if s.room != nil {
		*s.room = [roomForAttributes]attribute.KeyValue{}
		rooms.Put(s.room)
		s.room = nil
	}
}

// allowed reports whether a span may have all of the attributes.
func allowed(attrs []attribute.KeyValue) bool {
	return len(attrs) <= maxAttributes && !slices.ContainsFunc(attrs, invalid)
}

func invalid(a attribute.KeyValue) bool { return !a.Valid() }

// lastOfEach keeps the last value of each key, where the key was first. It changes attrs.
func lastOfEach(attrs []attribute.KeyValue) []attribute.KeyValue {
	kept := attrs[:0]
	for i := range attrs {
		if at := indexOf(kept, attrs[i].Key); at >= 0 {
			kept[at] = attrs[i]
		} else {
			kept = append(kept, attrs[i])
		}
	}
	return kept
}

// indexOf returns the index of the attribute with the key, or -1 if there is none.
func indexOf(attrs []attribute.KeyValue, key attribute.Key) int {
	for i := range attrs {
		if attrs[i].Key == key {
			return i
		}
	}
	return -1
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
	at := s.start.Add(time.Since(s.start)) // also if the host's clock was set meanwhile
	if len(opts) > 0 {
		if cfg := trace.NewSpanEndConfig(opts...); !cfg.Timestamp().IsZero() {
			at = cfg.Timestamp()
		}
	}
	s.EndAt(at)
}

// EndAt ends the span at the given time.
func (s *span) EndAt(at time.Time) {
	s.mu.Lock()
	if !s.end.IsZero() {
		s.mu.Unlock()
		return
	}
	s.end = at
	s.mu.Unlock()
	s.tracer.provider.sink.Take(s.tracer.scope, s) // nothing changes it any more
	s.freeAttributes()
}
