package waterfall

import (
	"bytes"
	"math"
	"strconv"

	"go.opentelemetry.io/otel/trace"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// Span is the part of a span that a picture shows.
type Span struct {
	Name string
	// Failed reports that its status is an error; Expected that it is marked as an
	// expected failure (its status is then no error).
	Failed, Expected bool
	// Clipped reports that only a part of it was recorded: it began before, or ended
	// after.
	Clipped bool

	key        spanKey
	parent     trace.SpanID
	start, end uint64   // nanoseconds since 1970; 0 is unknown
	first      Interval // its original times, if different
	links      []spanKey
	events     []moment
	text       spanText
	details    []byte // the span in OTLP, if kept
}

// moment is an event.
type moment struct {
	at   uint64
	name string
}

// spanText holds texts from attributes and status.
type spanText struct {
	container, containerName, exec string
	code, message                  string
}

// Bounds of one span; the first links and events are kept.
const (
	maxLinks  = 32
	maxEvents = 64
)

// times returns a span's times in nanoseconds since 1970. A start that is absent or
// exceeds time.Time makes both 0 (unknown); an end before the start becomes the start.
func times(start, end uint64) (uint64, uint64) {
	if start == 0 || start > math.MaxInt64 {
		return 0, 0
	}
	if end > math.MaxInt64 {
		end = start
	}
	return start, max(start, end)
}

func isError(status []byte) bool {
	failed := false
	for c := protofields.Of(status); c.Next(); {
		if c.Number == otlpwire.StatusCode {
			failed = c.Value == codeError
		}
	}
	return failed
}

func linkTo(msg []byte) (spanKey, bool) {
	return keyOf(protofields.Last(msg, otlpwire.LinkTraceID), protofields.Last(msg, otlpwire.LinkSpanID))
}

// read replaces s by a span and reports whether it is well-formed. intern shares texts
// between spans.
func (s *Span) read(span []byte, by Maker, intern func([]byte) string) bool {
	*s = Span{links: s.links[:0], events: s.events[:0]}
	var message []byte
	var traceID, spanID, parentID []byte
	c := protofields.Of(span)
	for c.Next() {
		switch {
		case c.Is(otlpwire.SpanTraceID):
			traceID = c.Bytes
		case c.Is(otlpwire.SpanSpanID):
			spanID = c.Bytes
		case c.Is(otlpwire.SpanParentID):
			parentID = c.Bytes
		case c.Is(otlpwire.SpanName):
			s.Name = intern(c.Bytes)
		case c.Has(otlpwire.SpanStart, protowire.Fixed64Type):
			s.start = c.Value
		case c.Has(otlpwire.SpanEnd, protowire.Fixed64Type):
			s.end = c.Value
		case c.Is(otlpwire.SpanStatus):
			s.Failed = isError(c.Bytes)
			message = protofields.Last(c.Bytes, otlpwire.StatusMessage)
		case c.Is(otlpwire.SpanLinks) && len(s.links) < maxLinks:
			if to, ok := linkTo(c.Bytes); ok {
				s.links = append(s.links, to)
			}
		case c.Is(otlpwire.SpanEvents) && len(s.events) < maxEvents:
			s.event(c.Bytes, intern)
		case c.Is(otlpwire.SpanAttributes):
			s.attribute(c.Bytes, by, intern)
		}
	}
	if key, ok := keyOf(traceID, spanID); ok {
		s.key = key
	}
	if up, ok := keyOf(traceID, parentID); ok {
		s.parent = up.span
	}
	s.start, s.end = times(s.start, s.end)
	if s.Failed = s.Failed && !s.Expected; s.Failed {
		s.text.message = intern(bytes.TrimSpace(message))
	}
	return c.Err() == nil
}

func (s *Span) event(msg []byte, intern func([]byte) string) {
	var e moment
	for c := protofields.Of(msg); c.Next(); {
		switch {
		case c.Has(otlpwire.EventTime, protowire.Fixed64Type):
			e.at = c.Value
		case c.Is(otlpwire.EventName):
			e.name = intern(c.Bytes)
		}
	}
	if e.at != 0 {
		s.events = append(s.events, e)
	}
}

func (s *Span) attribute(msg []byte, by Maker, intern func([]byte) string) {
	key, value := keyValue(msg)
	text := func() string { return intern(textOf(value)) }
	switch string(key) {
	case names.Container:
		s.text.container = text()
	case names.ContainerName:
		s.text.containerName = text()
	case names.Exec:
		s.text.exec = text()
	case names.ClaimedContainer:
		if by == ByAgent && s.text.container == "" {
			s.text.container = text()
		}
	case names.ClaimedExec:
		if by == ByAgent && s.text.exec == "" {
			s.text.exec = text()
		}
	case names.Clipped:
		s.Clipped = string(textOf(value)) == "true"
	case names.OriginalStart:
		s.first.From = number(value)
	case names.OriginalEnd:
		s.first.To = number(value)
	case names.ErrorType, names.StatusCode:
		if s.text.code == "" || string(key) == names.ErrorType {
			s.text.code = text()
		}
	case names.Expected:
		s.Expected = by != ByAgent && string(textOf(value)) == "true"
	}
}

// number returns an attribute's whole number, also if written as text; 0 for any other
// value.
func number(value []byte) uint64 {
	n, err := strconv.ParseUint(string(textOf(value)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// size returns roughly the bytes of the span's lists; its texts are shared.
func (s *Span) size() int { return 24*cap(s.links) + 24*cap(s.events) }

// readKey reads only a span's ids; it returns the zero key if they are invalid.
func readKey(span []byte) spanKey {
	var traceID, spanID []byte
	for c := protofields.Of(span); c.Next(); {
		switch {
		case c.Is(otlpwire.SpanTraceID):
			traceID = c.Bytes
		case c.Is(otlpwire.SpanSpanID):
			spanID = c.Bytes
		}
	}
	if key, ok := keyOf(traceID, spanID); ok {
		return key
	}
	return spanKey{}
}
