// Package otlpwire has the field numbers of OTLP's messages, and appends fields to bytes, for
// those who make or read spans without messages of package tracepb.
//
// It knows no span, and reads nothing.
package otlpwire

import (
	"math"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of opentelemetry/proto/trace/v1/trace.proto, and of resource.proto and
// common.proto beside it. A request of OTLP, ExportTraceServiceRequest, has the same fields
// as TracesData.
const (
	DataResourceSpans protowire.Number = 1

	ResourceSpansResource protowire.Number = 1
	ResourceSpansScopes   protowire.Number = 2
	ResourceSpansSchema   protowire.Number = 3

	ResourceAttributes protowire.Number = 1
	ResourceEntities   protowire.Number = 3

	EntitySchema          protowire.Number = 1
	EntityType            protowire.Number = 2
	EntityIDKeys          protowire.Number = 3
	EntityDescriptionKeys protowire.Number = 4

	ScopeSpansScope  protowire.Number = 1
	ScopeSpansSpans  protowire.Number = 2
	ScopeSpansSchema protowire.Number = 3

	ScopeName       protowire.Number = 1
	ScopeVersion    protowire.Number = 2
	ScopeAttributes protowire.Number = 3

	SpanTraceID           protowire.Number = 1
	SpanSpanID            protowire.Number = 2
	SpanTraceState        protowire.Number = 3
	SpanParentID          protowire.Number = 4
	SpanName              protowire.Number = 5
	SpanKind              protowire.Number = 6
	SpanStart             protowire.Number = 7
	SpanEnd               protowire.Number = 8
	SpanAttributes        protowire.Number = 9
	SpanDroppedAttributes protowire.Number = 10
	SpanEvents            protowire.Number = 11
	SpanDroppedEvents     protowire.Number = 12
	SpanLinks             protowire.Number = 13
	SpanDroppedLinks      protowire.Number = 14
	SpanStatus            protowire.Number = 15
	SpanFlags             protowire.Number = 16

	EventTime              protowire.Number = 1
	EventName              protowire.Number = 2
	EventAttributes        protowire.Number = 3
	EventDroppedAttributes protowire.Number = 4

	LinkTraceID           protowire.Number = 1
	LinkSpanID            protowire.Number = 2
	LinkTraceState        protowire.Number = 3
	LinkAttributes        protowire.Number = 4
	LinkDroppedAttributes protowire.Number = 5
	LinkFlags             protowire.Number = 6

	StatusMessage protowire.Number = 2
	StatusCode    protowire.Number = 3

	KeyValueKey   protowire.Number = 1
	KeyValueValue protowire.Number = 2

	AnyString protowire.Number = 1
	AnyBool   protowire.Number = 2
	AnyInt    protowire.Number = 3
	AnyDouble protowire.Number = 4
	AnyArray  protowire.Number = 5
	AnyMap    protowire.Number = 6
	AnyBytes  protowire.Number = 7

	ArrayValues protowire.Number = 1 // of KeyValueList as well
)

// Flags of a span and of a link besides W3C's (opentelemetry/proto/trace/v1/trace.proto,
// SpanFlags).
const (
	FlagHasIsRemote = 0x100
	FlagIsRemote    = 0x200
)

// FieldLen returns the length of a field of n bytes with a number below 16.
func FieldLen(n int) int { return 1 + protowire.SizeBytes(n) }

// AppendHead appends the tag and the length that precede the bytes of a field.
func AppendHead(b []byte, field protowire.Number, length int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(length))
}

// AppendBytes appends a field of bytes, a message or a text, which must be valid
// UTF-8.
func AppendBytes[T string | []byte](b []byte, field protowire.Number, v T) []byte {
	return append(AppendHead(b, field, len(v)), v...)
}

// AppendText appends a text. It replaces what is not UTF-8 with U+FFFD, since OTLP
// insists on UTF-8.
func AppendText(b []byte, field protowire.Number, v string) []byte {
	if !utf8.ValidString(v) {
		v = strings.ToValidUTF8(v, "\uFFFD")
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// AppendVarint appends an integer.
func AppendVarint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// AppendFixed64 appends an integer of 8 bytes.
func AppendFixed64(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), v)
}

// AppendFixed32 appends an integer of 4 bytes.
func AppendFixed32(b []byte, field protowire.Number, v uint32) []byte {
	return protowire.AppendFixed32(protowire.AppendTag(b, field, protowire.Fixed32Type), v)
}

// AppendDouble appends a floating-point number.
func AppendDouble(b []byte, field protowire.Number, v float64) []byte {
	return AppendFixed64(b, field, math.Float64bits(v))
}

// room is what Open leaves for a length: enough for messages of up to 16 KiB, so that
// Close need not move most of them.
const room = 2

// Open begins a field that is a message. It returns where the message's length goes,
// for Close.
func Open(b []byte, field protowire.Number) (_ []byte, at int) {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	at = len(b)
	var zero [room]byte
	return append(b, zero[:]...), at
}

// Close ends the message for which Open returned at.
func Close(b []byte, at int) []byte {
	n := len(b) - at - room
	size := protowire.SizeVarint(uint64(n))
	if size > room {
		var more [10]byte
		b = append(b, more[:size-room]...)
		copy(b[at+size:], b[at+room:at+room+n])
	} else if size < room {
		copy(b[at+size:], b[at+room:])
		b = b[:len(b)-(room-size)]
	}
	protowire.AppendVarint(b[at:at], uint64(n))
	return b
}
