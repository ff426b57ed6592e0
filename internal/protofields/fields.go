// Package protofields reads encoded protobuf messages field by field, without decoding them: a
// decoded message takes up to a hundred times its size on the wire, and its sender determines
// how much.
//
// It knows no message. Whoever reads one decides which of its fields count.
package protofields

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields steps through the fields of a message:
//
//	for f := protofields.Of(msg); f.Next(); {
//		if f.Is(1) {
//			name = f.Bytes
//		}
//	}
type Fields struct {
	Number protowire.Number
	Type   protowire.Type
	Value  uint64 // of a number, of any width
	Bytes  []byte // of a text, bytes or message: a part of the message that is read
	// The whole field is from Start to End, in bytes of the message.
	Start, End int

	msg []byte
	err error
}

// Of returns the fields of a message, before the first one.
func Of(msg []byte) Fields { return Fields{msg: msg} }

var errNumber = errors.New("a field has no valid number")

// Next moves to the next field and reports whether there is one.
func (f *Fields) Next() bool {
	if f.End == len(f.msg) || f.err != nil {
		return false
	}
	f.Start = f.End
	b := f.msg[f.Start:]
	// Nearly all fields are short texts or messages with a number below 16.
	const short = 1 << 7
	if len(b) >= 2 && 7 < b[0] && b[0] < short && b[1] < short && protowire.Type(b[0]&7) == protowire.BytesType {
		if n := 2 + int(b[1]); n <= len(b) {
			f.Number, f.Type, f.Value, f.Bytes = protowire.Number(b[0]>>3), protowire.BytesType, 0, b[2:n]
			f.End = f.Start + n
			return true
		}
	}
	return f.next(b)
}

func (f *Fields) next(b []byte) bool {
	number, typ, head := protowire.ConsumeTag(b)
	f.Number, f.Type, f.Value, f.Bytes = number, typ, 0, nil
	if head < 0 {
		f.Number, f.err = 0, protowire.ParseError(head)
		return false
	}
	if number > protowire.MaxValidNumber {
		f.Number, f.err = 0, errNumber
		return false
	}
	n := 0
	switch b = b[head:]; typ {
	case protowire.VarintType:
		f.Value, n = protowire.ConsumeVarint(b)
	case protowire.Fixed64Type:
		f.Value, n = protowire.ConsumeFixed64(b)
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(b)
		f.Value = uint64(v)
	case protowire.BytesType:
		f.Bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(number, typ, b)
	}
	if n < 0 {
		f.err = protowire.ParseError(n)
		return false
	}
	f.End = f.Start + head + n
	return true
}

// Cut reports whether Next ended because the message ends within a text, bytes or message. It
// then moves to that field, and Bytes has as much of it as there is.
func (f *Fields) Cut() bool {
	if f.err == nil || f.Type != protowire.BytesType || f.End == len(f.msg) {
		return false
	}
	b := f.msg[f.Start:]
	_, _, n := protowire.ConsumeTag(b)
	size, m := protowire.ConsumeVarint(b[n:])
	if m < 0 || size <= uint64(len(b)-n-m) {
		return false
	}
	f.Bytes, f.End = b[n+m:], len(f.msg)
	return true
}

// Err returns why Next ended before the end of the message, at Start; nil if it did not.
func (f *Fields) Err() error {
	if f.err == nil {
		return nil
	}
	return f.Wrap(f.err)
}

// Wrap says which field an error is about.
func (f *Fields) Wrap(err error) error {
	if f.Number == 0 {
		return fmt.Errorf("byte %d: %w", f.Start, err)
	}
	return fmt.Errorf("field %d at byte %d: %w", f.Number, f.Start, err)
}

// Is reports whether the field is a text, bytes or message with a number.
func (f *Fields) Is(number protowire.Number) bool { return f.Has(number, protowire.BytesType) }

// Has reports whether the field has a number and a type.
func (f *Fields) Has(number protowire.Number, typ protowire.Type) bool {
	return f.Number == number && f.Type == typ
}

// Whole returns the field with its number and length, a part of the message.
func (f *Fields) Whole() []byte { return f.msg[f.Start:f.End] }

// Last returns the last text, bytes or message with a number; nil if there is none. In protobuf
// the last one counts if a field occurs several times that is not declared as repeated.
func Last(msg []byte, number protowire.Number) (last []byte) {
	for f := Of(msg); f.Next(); {
		if f.Is(number) {
			last = f.Bytes
		}
	}
	return last
}
