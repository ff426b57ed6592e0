package span

import "google.golang.org/protobuf/encoding/protowire"

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

// Value is an attribute's value on its way from one wire to the other. The zero Value
// is empty text of which nothing is wanted.
type Value struct {
	// Text is a text, cut where it was too long, or an array as an ArrayValue message.
	// It is part of what the value was made of.
	Text []byte

	kind valueKind
	bits uint64 // bool, int and double
	// size is the length of the whole value: bytes of text, 1 for a bool, 8 for a
	// number, an array's the sum of its elements'.
	size     int
	elements int // of an array
}

// TextValue is a text of so many bytes in all, of which the first are here; they are UTF-8.
func TextValue(text []byte, size int) Value { return Value{kind: textValue, Text: text, size: size} }

// SizeValue is a value of which no more than the size is known.
func SizeValue(size int) Value { return Value{size: size} }

// NullValue is a number that could not be written.
func NullValue() Value { return Value{kind: nullValue, size: 8} }

// BoolValue is a boolean.
func BoolValue(b bool) Value {
	v := Value{kind: boolValue, size: 1}
	if b {
		v.bits = 1
	}
	return v
}

// IntValue is an integer.
func IntValue(n int64) Value { return Value{kind: intValue, bits: uint64(n), size: 8} }

// DoubleValue is a floating-point number, given as its bits.
func DoubleValue(bits uint64) Value { return Value{kind: doubleValue, bits: bits, size: 8} }

// IsText reports whether the value is a text, and not for its size alone.
func (v Value) IsText() bool { return v.kind == textValue }

// wireSize is the length of the value as an AnyValue message.
func (v Value) wireSize() int {
	switch v.kind {
	case boolValue:
		return 2
	case intValue:
		return 1 + protowire.SizeVarint(v.bits)
	case doubleValue:
		return 1 + 8
	case textValue, arrayValue:
		return fieldSize(len(v.Text))
	}
	return 0
}

func (v Value) append(b []byte) []byte {
	switch v.kind {
	case boolValue:
		return appendVarint(b, anyBool, v.bits)
	case intValue:
		return appendVarint(b, anyInt, v.bits)
	case doubleValue:
		return appendFixed64(b, anyDouble, v.bits)
	case textValue:
		return appendBytes(b, anyString, v.Text)
	case arrayValue:
		return appendBytes(b, anyArray, v.Text)
	}
	return b
}

// Array makes an array's value of its elements, of which at most want bytes are of use.
// It is used again and again, for its buffer.
type Array struct {
	otlp          []byte // the ArrayValue message
	want, n, size int
}

// Begin begins an array.
func (a *Array) Begin(want int) { *a = Array{otlp: a.otlp[:0], want: want} }

// fits reports whether neither the array's size nor its length, for elements may be
// empty, is beyond what is wanted.
func (a *Array) fits() bool { return a.size <= a.want && a.n <= min(a.want, MaxElements) }

// Add adds an element.
func (a *Array) Add(v Value) {
	a.n++
	a.size += v.size
	if !a.fits() {
		return
	}
	a.otlp = protowire.AppendTag(a.otlp, arrayValues, protowire.BytesType)
	a.otlp = protowire.AppendVarint(a.otlp, uint64(v.wireSize()))
	a.otlp = v.append(a.otlp)
}

// Value ends the array. It is valid until the next Begin.
func (a *Array) Value() Value {
	if a.want == 0 || !a.fits() {
		return SizeValue(a.size)
	}
	return Value{kind: arrayValue, Text: a.otlp, size: a.size, elements: a.n}
}
