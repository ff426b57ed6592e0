package agentwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// ParseOTLP reads what AppendOTLP wrote into s, replacing what was there; fields
// that OTLP does not have (Failed, ContainerID, ExecID, Encoding) become zero. It
// keeps no part of b, and allocates no more than b's length besides the strings.
//
// It is for bytes on their way between two programs of this module: attributes and
// the like are taken as they are, so that a later version's pass; Span.Proto tells
// whether they are whole. After an error s is empty.
func ParseOTLP(b []byte, s *Span) error {
	buf := s.rest[:0]
	*s = Span{}
	rest, err := s.parse(b, buf)
	if err != nil {
		*s = Span{rest: buf}
		return fmt.Errorf("parse OTLP span of %d bytes: %w", len(b), err)
	}
	s.rest = rest
	return nil
}

func (s *Span) parse(b, rest []byte) ([]byte, error) {
	for at := 0; at < len(b); {
		field, wire, head := protowire.ConsumeTag(b[at:])
		if head < 0 {
			return nil, fmt.Errorf("byte %d: %w", at, protowire.ParseError(head))
		}
		n := protowire.ConsumeFieldValue(field, wire, b[at+head:])
		if n < 0 {
			return nil, fmt.Errorf("field %d at byte %d: %w", field, at, protowire.ParseError(n))
		}
		whole := b[at : at+head+n]
		own, err := s.set(field, wire, whole[head:])
		if err != nil {
			return nil, fmt.Errorf("field %d at byte %d: %w", field, at, err)
		}
		if !own {
			rest = append(rest, whole...)
			s.cost += costOf(field, whole)
		}
		at += len(whole)
	}
	return rest, nil
}

var (
	errWireType = errors.New("another wire type than a span's")
	errIDLength = errors.New("an id of another length")
	errNotText  = errors.New("not UTF-8")
	errRange    = errors.New("out of range")
)

// set takes a field that Span has as one of its own; the value has been found
// whole. own is false for every other field.
func (s *Span) set(field protowire.Number, wire protowire.Type, v []byte) (own bool, err error) {
	want := protowire.BytesType
	switch field {
	case spanTraceID, spanSpanID, spanParentID, spanTraceState, spanName:
	case spanKind:
		want = protowire.VarintType
	case spanStart, spanEnd:
		want = protowire.Fixed64Type
	case spanFlags:
		want = protowire.Fixed32Type
	default:
		return false, nil
	}
	if wire != want {
		return true, errWireType
	}
	switch field {
	case spanTraceID:
		err = setID(s.TraceID[:], v)
	case spanSpanID:
		err = setID(s.SpanID[:], v)
	case spanParentID:
		err = setID(s.ParentID[:], v)
	case spanTraceState:
		err = setText(&s.TraceState, v)
	case spanName:
		err = setText(&s.Name, v)
	case spanKind:
		kind, _ := protowire.ConsumeVarint(v)
		if kind > math.MaxInt32 {
			return true, errRange
		}
		s.Kind = tracepb.Span_SpanKind(kind)
	case spanStart:
		s.Start = binary.LittleEndian.Uint64(v)
	case spanEnd:
		s.End = binary.LittleEndian.Uint64(v)
	case spanFlags:
		flags := binary.LittleEndian.Uint32(v)
		if flags > math.MaxUint8 {
			return true, errRange
		}
		s.TraceFlags = uint8(flags)
	}
	return true, err
}

func setID(id, v []byte) error {
	v, _ = protowire.ConsumeBytes(v)
	if len(v) != len(id) {
		return errIDLength
	}
	copy(id, v)
	return nil
}

func setText(text *string, v []byte) error {
	v, _ = protowire.ConsumeBytes(v)
	if !utf8.Valid(v) {
		return errNotText
	}
	*text = string(v)
	return nil
}
