package receiver

import (
	"errors"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// shape is what a message may contain, as far as that decides whether it can be decoded:
// which fields are texts, ids or messages, by number.
type shape struct{ fields []field }

type field struct {
	text bool
	id   int    // the length that an id has, unless it is absent; 0: no id
	of   *shape // of a message
}

// shapeOf returns the shape of a message. known has those that are made already, or are
// being made: values of attributes contain values.
func shapeOf(md protoreflect.MessageDescriptor, known map[protoreflect.FullName]*shape) *shape {
	if s := known[md.FullName()]; s != nil {
		return s
	}
	s := new(shape)
	known[md.FullName()] = s
	all := md.Fields()
	for i := range all.Len() {
		fd := all.Get(i)
		var f field
		switch {
		case fd.Message() != nil:
			f.of = shapeOf(fd.Message(), known)
		case fd.Kind() == protoreflect.StringKind:
			f.text = true
		case fd.Kind() == protoreflect.BytesKind && strings.HasSuffix(string(fd.Name()), "trace_id"):
			f.id = 16
		case fd.Kind() == protoreflect.BytesKind && strings.HasSuffix(string(fd.Name()), "span_id"):
			f.id = 8
		}
		for len(s.fields) <= int(fd.Number()) {
			s.fields = append(s.fields, field{})
		}
		s.fields[fd.Number()] = f
	}
	return s
}

var (
	errNotText  = errors.New("a text is not UTF-8")
	errIDLength = errors.New("an id has a wrong length")
	errDepth    = errors.New("values are nested too deep")
	errNumber   = errors.New("a field has no valid number")
	errGroup    = errors.New("there is a group, which OTLP does not have")
)

// maxDepth bounds how deep messages may be nested.
const maxDepth = 48

// check reports why a message of the shape cannot be decoded. It counts the messages
// within.
func (s *shape) check(b []byte, depth int, messages *int) error {
	*messages++
	if depth > maxDepth {
		return errDepth
	}
	for len(b) > 0 {
		number, v, after, err := next(b)
		if err != nil {
			return err
		}
		if err := s.field(number).check(v, depth, messages); err != nil {
			return err
		}
		b = after
	}
	return nil
}

// field returns what is known of a field.
func (s *shape) field(number protowire.Number) *field {
	if int(number) < len(s.fields) {
		return &s.fields[number]
	}
	return &unknown
}

var unknown field

// check reports why a field's value cannot be decoded.
func (f *field) check(v []byte, depth int, messages *int) error {
	switch {
	case f.text:
		if !utf8.Valid(v) {
			return errNotText
		}
	case f.of != nil:
		return f.of.check(v, depth+1, messages)
	case f.id != 0 && len(v) != f.id && len(v) != 0:
		return errIDLength
	}
	return nil
}

// next reads a message's first field: its number if it has a length, otherwise 0, its
// value, and what follows.
func next(b []byte) (number protowire.Number, v, after []byte, err error) {
	// Nearly all fields are short texts or messages with a number below 16.
	const short = 1 << 7
	if len(b) >= 2 && b[0] < short && b[1] < short && protowire.Type(b[0]&7) == protowire.BytesType && b[0] > 7 {
		if end := 2 + int(b[1]); end <= len(b) {
			return protowire.Number(b[0] >> 3), b[2:end], b[end:], nil
		}
	}
	number, wire, n := protowire.ConsumeTag(b)
	switch {
	case n < 0:
		return 0, nil, nil, protowire.ParseError(n)
	case number > protowire.MaxValidNumber:
		return 0, nil, nil, errNumber
	case wire == protowire.StartGroupType, wire == protowire.EndGroupType:
		return 0, nil, nil, errGroup
	case wire == protowire.BytesType:
		v, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return 0, nil, nil, protowire.ParseError(m)
		}
		return number, v, b[n+m:], nil
	}
	m := protowire.ConsumeFieldValue(number, wire, b[n:])
	if m < 0 {
		return 0, nil, nil, protowire.ParseError(m)
	}
	return 0, nil, b[n+m:], nil
}
