package span

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpshape"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// MaxSize bounds the spans that Parse takes, in bytes. With reduced attributes a span has some
// hundred bytes.
const MaxSize = 1 << 20

// Between the host's endpoint and the relay of its sandbox, a runtime's span is a protobuf
// message with these fields, each at most once, empty ones omitted. Relays may be older or
// newer than the endpoint's process, so a field keeps its number and meaning forever, and
// unknown ones are skipped.
const (
	fieldOTLP        protowire.Number = 1 // an opentelemetry.proto.trace.v1.Span
	fieldMethod      protowire.Number = 2
	fieldSandbox     protowire.Number = 3
	fieldContainerID protowire.Number = 4
	fieldExecID      protowire.Number = 5
	fieldFailed      protowire.Number = 6 // a bool
)

// Append appends the span in Parse's format. The message does not contain its own length; the
// link adds it.
func (s *Span) Append(b []byte) []byte {
	at := len(b)
	b = seal(s.AppendOTLP(b), at, fieldOTLP)
	for field, text := range [...]string{
		fieldMethod: s.Method, fieldSandbox: s.Sandbox, fieldContainerID: s.ContainerID, fieldExecID: s.ExecID,
	} {
		if text != "" {
			b = otlpwire.AppendBytes(b, protowire.Number(field), text)
		}
	}
	if s.Failed {
		b = otlpwire.AppendVarint(b, fieldFailed, 1)
	}
	return b
}

var (
	errNoSpan   = errors.New("there is no span in it, or one without ids")
	errWireType = errors.New("another wire type than the field's")
	errName     = fmt.Errorf("not UTF-8 of at most %d bytes", maxID)
	errIDLength = errors.New("an id of another length")
	errNotText  = errors.New("not UTF-8")
	errRange    = errors.New("out of range")
)

// Parse reads one span that Append wrote and keeps no part of b. The result is valid OTLP with
// a trace id and a span id. Attributes and the like are taken as they are, so that a later
// version's pass. Parse allocates in proportion to len(b), which is at most MaxSize.
func Parse(b []byte) (*Span, error) {
	s := new(Span)
	if err := s.parse(b); err != nil {
		return nil, fmt.Errorf("parse runtime span of %d bytes: %w", len(b), err)
	}
	return s, nil
}

func (s *Span) parse(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("longer than %d", MaxSize)
	}
	f := protofields.Of(b)
	for f.Next() {
		if err := s.take(&f); err != nil {
			return f.Wrap(err)
		}
	}
	err := f.Err()
	if err == nil && (s.TraceID == [16]byte{} || s.SpanID == [8]byte{}) {
		err = errNoSpan
	}
	return err
}

// take stores a field of the message around the span.
func (s *Span) take(f *protofields.Fields) (err error) {
	switch f.Number {
	case fieldOTLP:
		if err = is(f, protowire.BytesType); err == nil {
			err = s.parseOTLP(f.Bytes)
		}
	case fieldMethod:
		s.Method, err = nameOf(f)
	case fieldSandbox:
		s.Sandbox, err = nameOf(f)
	case fieldContainerID:
		s.ContainerID, err = nameOf(f)
	case fieldExecID:
		s.ExecID, err = nameOf(f)
	case fieldFailed:
		err = is(f, protowire.VarintType)
		s.Failed = f.Value != 0
	}
	return err
}

// parseOTLP reads a span's message. It skips the attributes with ids of the container and exec,
// which have their own fields in the message around it.
func (s *Span) parseOTLP(b []byte) error {
	var messages int
	f := protofields.Of(b)
	for f.Next() {
		own, err := s.set(&f)
		if err != nil {
			return f.Wrap(err)
		}
		if own || isID(&f) {
			continue
		}
		// An invalid span would invalidate all others in its record.
		if err := otlpshape.Span.CheckField(&f, &messages); err != nil {
			return f.Wrap(err)
		}
		if s.rest == nil {
			s.rest = make([]byte, 0, len(b)-f.Start)
		}
		s.rest = append(s.rest, f.Whole()...)
		s.cost += costOf(f.Number, f.Whole())
		s.eventful, s.linked = s.eventful || f.Number == otlpwire.SpanEvents, s.linked || f.Number == otlpwire.SpanLinks
	}
	return f.Err()
}

// isID reports whether a field is an attribute with a container's or exec's id.
func isID(f *protofields.Fields) bool {
	if !f.Is(otlpwire.SpanAttributes) {
		return false
	}
	key := protofields.Of(f.Bytes)
	return key.Next() && key.Is(otlpwire.KeyValueKey) && (string(key.Bytes) == names.Container || string(key.Bytes) == names.Exec)
}

// set stores a field for which Span has its own; own is false for any other.
func (s *Span) set(f *protofields.Fields) (own bool, err error) {
	switch f.Number {
	case otlpwire.SpanTraceID:
		err = setID(s.TraceID[:], f)
	case otlpwire.SpanSpanID:
		err = setID(s.SpanID[:], f)
	case otlpwire.SpanParentID:
		err = setID(s.ParentID[:], f)
	case otlpwire.SpanTraceState:
		s.TraceState, err = textOf(f)
	case otlpwire.SpanName:
		s.Name, err = textOf(f)
	case otlpwire.SpanKind:
		err = inRange(f, protowire.VarintType, math.MaxInt32)
		s.Kind = tracepb.Span_SpanKind(f.Value)
	case otlpwire.SpanStart:
		err = is(f, protowire.Fixed64Type)
		s.Start = f.Value
	case otlpwire.SpanEnd:
		err = is(f, protowire.Fixed64Type)
		s.End = f.Value
	case otlpwire.SpanFlags:
		err = inRange(f, protowire.Fixed32Type, math.MaxUint8)
		s.TraceFlags = uint8(f.Value)
	case otlpwire.SpanAttributes, otlpwire.SpanEvents, otlpwire.SpanLinks: // edited later, so their type matters
		return false, is(f, protowire.BytesType)
	default:
		return false, nil
	}
	return true, err
}

func is(f *protofields.Fields, typ protowire.Type) error {
	if f.Type != typ {
		return errWireType
	}
	return nil
}

func inRange(f *protofields.Fields, typ protowire.Type, most uint64) error {
	if f.Type == typ && f.Value > most {
		return errRange
	}
	return is(f, typ)
}

func setID(id []byte, f *protofields.Fields) error {
	if f.Type == protowire.BytesType && len(f.Bytes) != len(id) {
		return errIDLength
	}
	copy(id, f.Bytes)
	return is(f, protowire.BytesType)
}

func textOf(f *protofields.Fields) (string, error) {
	if !utf8.Valid(f.Bytes) {
		return "", errNotText
	}
	return string(f.Bytes), is(f, protowire.BytesType)
}

func nameOf(f *protofields.Fields) (string, error) {
	if len(f.Bytes) > maxID || !utf8.Valid(f.Bytes) {
		return "", errName
	}
	return string(f.Bytes), is(f, protowire.BytesType)
}
