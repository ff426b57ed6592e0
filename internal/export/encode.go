package export

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// AppendElement implements [Ended].
func (s *span) AppendElement(b []byte) []byte {
	b, at := otlpwire.Open(b, otlpwire.ScopeSpansSpans)
	traceID, spanID := s.context.TraceID(), s.context.SpanID()
	b = otlpwire.AppendBytes(b, otlpwire.SpanTraceID, traceID[:])
	b = otlpwire.AppendBytes(b, otlpwire.SpanSpanID, spanID[:])
	if state := s.context.TraceState(); state.Len() > 0 {
		b = otlpwire.AppendText(b, otlpwire.SpanTraceState, state.String())
	}
	if s.parent.IsValid() {
		b = otlpwire.AppendBytes(b, otlpwire.SpanParentID, s.parent[:])
	}
	b = otlpwire.AppendText(b, otlpwire.SpanName, s.name)
	b = otlpwire.AppendVarint(b, otlpwire.SpanKind, uint64(s.kind)) // the same numbers
	b = otlpwire.AppendFixed64(b, otlpwire.SpanStart, nanoseconds(s.start))
	b = otlpwire.AppendFixed64(b, otlpwire.SpanEnd, nanoseconds(s.end))
	b = s.appendAttributes(b)
	b = append(b, s.more...)
	b = appendCount(b, otlpwire.SpanDroppedAttributes, s.droppedAttributes)
	b = appendCount(b, otlpwire.SpanDroppedEvents, s.events-maxEvents)
	b = appendCount(b, otlpwire.SpanDroppedLinks, s.links-maxLinks)
	b = s.appendStatus(b)
	b = otlpwire.AppendFixed32(b, otlpwire.SpanFlags, flags(s.context.TraceFlags(), s.parentIsRemote))
	return otlpwire.Close(b, at)
}

// appendAttributes appends the attributes that the span began with, each with its latest value,
// and then those that were added since.
func (s *span) appendAttributes(b []byte) []byte {
	since := lastOfEach(s.attributes)
	for i := range s.first {
		a := &s.first[i]
		at := indexOf(since, a.Key)
		if at >= 0 {
			a = &since[at]
		}
		b = appendAttribute(b, otlpwire.SpanAttributes, a)
		if at >= 0 {
			since = slices.Delete(since, at, at+1)
		}
	}
	return appendAttributes(b, otlpwire.SpanAttributes, since)
}

func (s *span) appendStatus(b []byte) []byte {
	const ok, failed = 1, 2 // of OTLP's Status.StatusCode
	if s.status == codes.Unset {
		return b
	}
	b, at := otlpwire.Open(b, otlpwire.SpanStatus)
	code := uint64(ok)
	if s.status == codes.Error {
		code = failed
	}
	if s.description != "" {
		b = otlpwire.AppendText(b, otlpwire.StatusMessage, s.description)
	}
	return otlpwire.Close(otlpwire.AppendVarint(b, otlpwire.StatusCode, code), at)
}

// flags returns OTLP's flags of a context: W3C's, and whether the context is from another process.
func flags(w3c trace.TraceFlags, remote bool) uint32 {
	all := uint32(w3c) | otlpwire.FlagHasIsRemote
	if remote {
		all |= otlpwire.FlagIsRemote
	}
	return all
}

func nanoseconds(t time.Time) uint64 { return uint64(max(0, t.UnixNano())) }

func appendCount(b []byte, field protowire.Number, n int) []byte {
	if n <= 0 {
		return b
	}
	return otlpwire.AppendVarint(b, field, uint64(n))
}

// appendBounded appends the attributes of an event or a link.
func appendBounded(b []byte, field, dropped protowire.Number, attrs []attribute.KeyValue) []byte {
	if len(attrs) == 0 {
		return b
	}
	n := min(len(attrs), maxAttributes)
	b = appendAttributes(b, field, attrs[:n])
	return appendCount(b, dropped, len(attrs)-n)
}

func appendAttributes(b []byte, field protowire.Number, attrs []attribute.KeyValue) []byte {
	for i := range attrs {
		b = appendAttribute(b, field, &attrs[i])
	}
	return b
}

func appendAttribute(b []byte, field protowire.Number, a *attribute.KeyValue) []byte {
	b, kv := otlpwire.Open(b, field)
	b = otlpwire.AppendText(b, otlpwire.KeyValueKey, string(a.Key))
	b, value := otlpwire.Open(b, otlpwire.KeyValueValue)
	b = appendValue(b, a.Value)
	return otlpwire.Close(otlpwire.Close(b, value), kv)
}

// appendValue appends the fields of an AnyValue.
func appendValue(b []byte, v attribute.Value) []byte {
	switch v.Type() {
	case attribute.STRING:
		return otlpwire.AppendText(b, otlpwire.AnyString, cut(v.AsString()))
	case attribute.BOOL:
		return otlpwire.AppendVarint(b, otlpwire.AnyBool, protowire.EncodeBool(v.AsBool()))
	case attribute.INT64:
		return otlpwire.AppendVarint(b, otlpwire.AnyInt, uint64(v.AsInt64()))
	case attribute.FLOAT64:
		return otlpwire.AppendDouble(b, otlpwire.AnyDouble, v.AsFloat64())
	case attribute.STRINGSLICE:
		return appendArray(b, v.AsStringSlice(), attribute.StringValue)
	case attribute.BOOLSLICE:
		return appendArray(b, v.AsBoolSlice(), attribute.BoolValue)
	case attribute.INT64SLICE:
		return appendArray(b, v.AsInt64Slice(), attribute.Int64Value)
	case attribute.FLOAT64SLICE:
		return appendArray(b, v.AsFloat64Slice(), attribute.Float64Value)
	}
	return otlpwire.AppendText(b, otlpwire.AnyString, cut(v.String())) // a type that is not used
}

func appendArray[T any](b []byte, all []T, value func(T) attribute.Value) []byte {
	b, array := otlpwire.Open(b, otlpwire.AnyArray)
	for _, v := range all {
		at := 0
		b, at = otlpwire.Open(b, otlpwire.ArrayValues)
		b = otlpwire.Close(appendValue(b, value(v)), at)
	}
	return otlpwire.Close(b, array)
}

// cut returns as much of a text as a value may have.
func cut(s string) string {
	if len(s) <= maxValueLen {
		return s
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	for at, n := 0, 0; at < len(s); n++ {
		if n == maxValueLen {
			return s[:at]
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		at += size
	}
	return s
}
