package receiver

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/shimtrace/shimtrace/internal/protofields"
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
	f := protofields.Of(b)
	for f.Next() {
		if err := s.field(&f).check(f.Bytes, depth, messages); err != nil {
			return err
		}
	}
	return f.Err()
}

// field returns what is known of a field.
func (s *shape) field(f *protofields.Fields) *field {
	switch {
	case f.Type == protowire.StartGroupType:
		return &group
	case f.Type == protowire.BytesType && int(f.Number) < len(s.fields):
		return &s.fields[f.Number]
	}
	return &unknown
}

var unknown, group field

// check reports why a field's value cannot be decoded.
func (f *field) check(v []byte, depth int, messages *int) error {
	switch {
	case f == &group:
		return errGroup
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
