// Package otlpshape checks encoded OTLP messages without decoding them: that a reader will be
// able to. Decoding would take up to a hundred times the bytes.
package otlpshape

import (
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/protofields"
)

// Shape is what a message may contain, as far as that decides whether it can be decoded:
// which fields are texts, ids or messages, by number.
type Shape struct{ fields []field }

type field struct {
	text bool
	id   int    // the length that an id has, unless it is absent; 0: no id
	of   *Shape // of a message
}

// Why a message cannot be decoded.
var (
	ErrNotText  = errors.New("a text is not UTF-8")
	ErrIDLength = errors.New("an id has a wrong length")
	ErrDepth    = errors.New("values are nested too deep")
	ErrGroup    = errors.New("there is a group, which OTLP does not have")
)

// maxDepth bounds how deep messages may be nested.
const maxDepth = 48

// CheckField returns why a field of a message of the shape cannot be decoded, nil if it can.
// It adds the number of messages in the field, with those within, to messages.
func (s *Shape) CheckField(f *protofields.Fields, messages *int) error {
	return s.field(f).check(f.Bytes, 0, messages)
}

func (s *Shape) check(b []byte, depth int, messages *int) error {
	*messages++
	if depth > maxDepth {
		return ErrDepth
	}
	f := protofields.Of(b)
	for f.Next() {
		if err := s.field(&f).check(f.Bytes, depth, messages); err != nil {
			return f.Wrap(err)
		}
	}
	return f.Err()
}

// field returns what is known of a field.
func (s *Shape) field(f *protofields.Fields) *field {
	switch {
	case f.Type == protowire.StartGroupType:
		return &group
	case f.Type == protowire.BytesType && int(f.Number) < len(s.fields):
		return &s.fields[f.Number]
	}
	return &unknown
}

var unknown, group field

// check returns why a field's value cannot be decoded.
func (f *field) check(v []byte, depth int, messages *int) error {
	switch {
	case f == &group:
		return ErrGroup
	case f.text:
		if !utf8.Valid(v) {
			return ErrNotText
		}
	case f.of != nil:
		return f.of.check(v, depth+1, messages)
	case f.id != 0 && len(v) != f.id && len(v) != 0:
		return ErrIDLength
	}
	return nil
}
