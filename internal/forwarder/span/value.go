package span

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

type valueKind uint8

const (
	// sizeOnly: the value itself was not wanted, or too long.
	sizeOnly valueKind = iota
	// nullValue: the agent could not write the value (a JSON null).
	nullValue
	boolValue
	intValue
	doubleValue
	textValue
	arrayValue
)

// Value is an attribute's value between decoding and encoding. The zero Value is one of size 0,
// of which only the size is known.
type Value struct {
	// Text is a text, cut if it was too long, or an array as an ArrayValue message. It shares
	// the memory of its source.
	Text []byte

	kind valueKind
	bits uint64 // bool, int and double
	// size is the length of the whole value: the bytes of a text, 1 for a bool, 8 for a number,
	// the sum of the elements for an array.
	size     int
	elements int // of an array
}

// TextValue returns a text of size bytes, of which only the first may be given. It must be
// UTF-8.
func TextValue(text []byte, size int) Value { return Value{kind: textValue, Text: text, size: size} }

// SizeValue returns a value of which only the size is known.
func SizeValue(size int) Value { return Value{size: size} }

// NullValue returns a number that the agent could not write.
func NullValue() Value { return Value{kind: nullValue, size: 8} }

// BoolValue returns a boolean.
func BoolValue(b bool) Value {
	v := Value{kind: boolValue, size: 1}
	if b {
		v.bits = 1
	}
	return v
}

// IntValue returns an integer.
func IntValue(n int64) Value { return Value{kind: intValue, bits: uint64(n), size: 8} }

// DoubleValue returns a floating-point number, given as its IEEE 754 bits.
func DoubleValue(bits uint64) Value { return Value{kind: doubleValue, bits: bits, size: 8} }

// IsText reports whether the value is a text, and not only its size.
func (v Value) IsText() bool { return v.kind == textValue }

// wireSize returns the length of the value as an AnyValue message.
func (v Value) wireSize() int {
	switch v.kind {
	case boolValue:
		return 2
	case intValue:
		return 1 + protowire.SizeVarint(v.bits)
	case doubleValue:
		return 1 + 8
	case textValue, arrayValue:
		return otlpwire.FieldLen(len(v.Text))
	}
	return 0
}

func (v Value) append(b []byte) []byte {
	switch v.kind {
	case boolValue:
		return otlpwire.AppendVarint(b, otlpwire.AnyBool, v.bits)
	case intValue:
		return otlpwire.AppendVarint(b, otlpwire.AnyInt, v.bits)
	case doubleValue:
		return otlpwire.AppendFixed64(b, otlpwire.AnyDouble, v.bits)
	case textValue:
		return otlpwire.AppendBytes(b, otlpwire.AnyString, v.Text)
	case arrayValue:
		return otlpwire.AppendBytes(b, otlpwire.AnyArray, v.Text)
	}
	return b
}

// Array collects an array's elements into a Value of at most want bytes. It is reused for its
// buffer.
type Array struct {
	otlp          []byte // the ArrayValue message
	want, n, size int
}

// Begin begins an array.
func (a *Array) Begin(want int) { *a = Array{otlp: a.otlp[:0], want: want} }

// fits reports whether the array is within its limits, in bytes and in elements, since elements
// may be empty.
func (a *Array) fits() bool { return a.size <= a.want && a.n <= min(a.want, MaxElements) }

// Add adds an element.
func (a *Array) Add(v Value) {
	a.n++
	a.size += v.size
	if !a.fits() {
		return
	}
	a.otlp = v.append(otlpwire.AppendHead(a.otlp, otlpwire.ArrayValues, v.wireSize()))
}

// Value ends the array and returns its value, valid until the next Begin.
func (a *Array) Value() Value {
	if a.want == 0 || !a.fits() {
		return SizeValue(a.size)
	}
	return Value{kind: arrayValue, Text: a.otlp, size: a.size, elements: a.n}
}
