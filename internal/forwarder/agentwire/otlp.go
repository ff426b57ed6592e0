package agentwire

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of opentelemetry/proto/trace/v1/trace.proto and
// opentelemetry/proto/common/v1/common.proto.
const (
	scopeSpans protowire.Number = 2

	spanTraceID           protowire.Number = 1
	spanSpanID            protowire.Number = 2
	spanTraceState        protowire.Number = 3
	spanParentID          protowire.Number = 4
	spanName              protowire.Number = 5
	spanKind              protowire.Number = 6
	spanStart             protowire.Number = 7
	spanEnd               protowire.Number = 8
	spanAttributes        protowire.Number = 9
	spanDroppedAttributes protowire.Number = 10
	spanEvents            protowire.Number = 11
	spanDroppedEvents     protowire.Number = 12
	spanLinks             protowire.Number = 13
	spanDroppedLinks      protowire.Number = 14
	spanStatus            protowire.Number = 15
	spanFlags             protowire.Number = 16

	eventTime              protowire.Number = 1
	eventName              protowire.Number = 2
	eventAttributes        protowire.Number = 3
	eventDroppedAttributes protowire.Number = 4

	linkTraceID           protowire.Number = 1
	linkSpanID            protowire.Number = 2
	linkTraceState        protowire.Number = 3
	linkAttributes        protowire.Number = 4
	linkDroppedAttributes protowire.Number = 5
	linkFlags             protowire.Number = 6

	statusMessage protowire.Number = 2
	statusCode    protowire.Number = 3

	keyValueKey   protowire.Number = 1
	keyValueValue protowire.Number = 2

	anyString protowire.Number = 1
	anyBool   protowire.Number = 2
	anyInt    protowire.Number = 3
	anyDouble protowire.Number = 4
	anyArray  protowire.Number = 5

	arrayValues protowire.Number = 1
)

// Bits of a link's flags beyond the W3C trace flags: whether the linked context
// is known to be remote or not, and which.
const (
	flagRemoteKnown = 0x100
	flagRemote      = 0x200
)

func appendBytes[T string | []byte](b []byte, field protowire.Number, v T) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendFixed64(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), v)
}

func appendFixed32(b []byte, field protowire.Number, v uint32) []byte {
	return protowire.AppendFixed32(protowire.AppendTag(b, field, protowire.Fixed32Type), v)
}

// fieldSize is the size of a length-delimited field of n bytes whose number is
// below 16.
func fieldSize(n int) int { return 1 + protowire.SizeBytes(n) }

// seal makes a length-delimited field of what was appended since at.
func seal(b []byte, at int, field protowire.Number) []byte {
	var room [15]byte
	head := protowire.AppendTag(room[:0], field, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(b)-at))
	end := len(b)
	b = append(b, head...)
	copy(b[at+len(head):], b[at:end])
	copy(b[at:], head)
	return b
}

type valueKind uint8

const (
	// sizeOnly: the value itself was not wanted, or was too long.
	sizeOnly valueKind = iota
	// nullValue: there is a value, the agent could not write it (a JSON null).
	nullValue
	boolValue
	intValue
	doubleValue
	textValue
	arrayValue
)

// value is an attribute's value on its way from one wire to the other.
type value struct {
	kind valueKind
	bits uint64 // bool, int and double
	text []byte // text, cut where it was too long; or the ArrayValue message
	// size is the length of the whole value: bytes of text, 1 for a bool, 8 for a
	// number, an array's the sum of its elements'.
	size int
	// elements are those of an array.
	elements int
}

// wireSize is the length of the value as an AnyValue message.
func (v value) wireSize() int {
	switch v.kind {
	case boolValue:
		return 2
	case intValue:
		return 1 + protowire.SizeVarint(v.bits)
	case doubleValue:
		return 1 + 8
	case textValue, arrayValue:
		return fieldSize(len(v.text))
	}
	return 0
}

func (v value) append(b []byte) []byte {
	switch v.kind {
	case boolValue:
		return appendVarint(b, anyBool, v.bits)
	case intValue:
		return appendVarint(b, anyInt, v.bits)
	case doubleValue:
		return appendFixed64(b, anyDouble, v.bits)
	case textValue:
		return appendBytes(b, anyString, v.text)
	case arrayValue:
		return appendBytes(b, anyArray, v.text)
	}
	return b
}

// arrayBuilder makes an array's value of its elements.
type arrayBuilder struct {
	otlp    []byte // the ArrayValue message
	n, size int
}

func (a *arrayBuilder) reset() { *a = arrayBuilder{otlp: a.otlp[:0]} }

// fits says that neither the array's size nor its length, for elements may be
// empty, is beyond what is wanted.
func (a *arrayBuilder) fits(want int) bool { return a.size <= want && a.n <= min(want, maxElements) }

func (a *arrayBuilder) add(v value, want int) {
	a.n++
	a.size += v.size
	if !a.fits(want) {
		return
	}
	a.otlp = protowire.AppendTag(a.otlp, arrayValues, protowire.BytesType)
	a.otlp = protowire.AppendVarint(a.otlp, uint64(v.wireSize()))
	a.otlp = v.append(a.otlp)
}

// value is valid until the next reset.
func (a *arrayBuilder) value(want int) value {
	if want == 0 || !a.fits(want) {
		return value{size: a.size}
	}
	return value{kind: arrayValue, text: a.otlp, size: a.size, elements: a.n}
}

// appendAttribute appends a KeyValue as the given field; its key is key+suffix.
func appendAttribute[K string | []byte](b []byte, field protowire.Number, key K, suffix string, v value) []byte {
	keySize, valueSize := len(key)+len(suffix), v.wireSize()
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(fieldSize(keySize)+fieldSize(valueSize)))
	b = protowire.AppendTag(b, keyValueKey, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(keySize))
	b = append(b, key...)
	b = append(b, suffix...)
	b = protowire.AppendTag(b, keyValueValue, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(valueSize))
	return v.append(b)
}
