package span

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
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
	err := fields(b, func(field protowire.Number, wire protowire.Type, v, _ []byte) (err error) {
		switch field {
		case fieldOTLP:
			if v, err = bytesOf(wire, v); err == nil {
				err = s.parseOTLP(v)
			}
		case fieldMethod:
			s.Method, err = nameOf(wire, v)
		case fieldSandbox:
			s.Sandbox, err = nameOf(wire, v)
		case fieldContainerID:
			s.ContainerID, err = nameOf(wire, v)
		case fieldExecID:
			s.ExecID, err = nameOf(wire, v)
		case fieldFailed:
			if wire != protowire.VarintType {
				return errWireType
			}
			u, _ := protowire.ConsumeVarint(v)
			s.Failed = u != 0
		}
		return err
	})
	if err == nil && (s.TraceID == [16]byte{} || s.SpanID == [8]byte{}) {
		err = errNoSpan
	}
	return err
}

// fields calls f for each field of a message, with its encoded value and the whole field.
func fields(b []byte, f func(field protowire.Number, wire protowire.Type, v, whole []byte) error) error {
	for at := 0; at < len(b); {
		field, wire, head := protowire.ConsumeTag(b[at:])
		if head < 0 {
			return fmt.Errorf("byte %d: %w", at, protowire.ParseError(head))
		}
		n := protowire.ConsumeFieldValue(field, wire, b[at+head:])
		if n < 0 {
			return fmt.Errorf("field %d at byte %d: %w", field, at, protowire.ParseError(n))
		}
		end := at + head + n
		if err := f(field, wire, b[at+head:end], b[at:end]); err != nil {
			return fmt.Errorf("field %d at byte %d: %w", field, at, err)
		}
		at = end
	}
	return nil
}

// parseOTLP reads a span's message. It skips the attributes with ids of the container and exec,
// which have their own fields in the message around it.
func (s *Span) parseOTLP(b []byte) error {
	if err := fields(b, func(field protowire.Number, wire protowire.Type, v, whole []byte) error {
		own, err := s.set(field, wire, v)
		if err == nil && !own && !isID(field, wire, v) {
			s.rest = append(s.rest, whole...)
			s.cost += costOf(field, whole)
			s.eventful, s.linked = s.eventful || field == otlpwire.SpanEvents, s.linked || field == otlpwire.SpanLinks
		}
		return err
	}); err != nil {
		return err
	}
	// An invalid span would invalidate all others in its record.
	return proto.Unmarshal(s.rest, new(tracepb.Span))
}

// isID reports whether a field is an attribute with a container's or exec's id.
func isID(field protowire.Number, wire protowire.Type, v []byte) bool {
	if field != otlpwire.SpanAttributes || wire != protowire.BytesType {
		return false
	}
	v, _ = protowire.ConsumeBytes(v)
	if number, wire, n := protowire.ConsumeTag(v); n < 0 || number != otlpwire.KeyValueKey || wire != protowire.BytesType {
		return false
	} else if key, n := protowire.ConsumeBytes(v[n:]); n < 0 || string(key) != names.Container && string(key) != names.Exec {
		return false
	}
	return true
}

// set stores a field for which Span has its own; own is false for any other. The value is known
// to be complete.
func (s *Span) set(field protowire.Number, wire protowire.Type, v []byte) (own bool, err error) {
	want := protowire.BytesType
	switch field {
	case otlpwire.SpanTraceID, otlpwire.SpanSpanID, otlpwire.SpanParentID, otlpwire.SpanTraceState, otlpwire.SpanName:
	case otlpwire.SpanKind:
		want = protowire.VarintType
	case otlpwire.SpanStart, otlpwire.SpanEnd:
		want = protowire.Fixed64Type
	case otlpwire.SpanFlags:
		want = protowire.Fixed32Type
	case otlpwire.SpanAttributes, otlpwire.SpanEvents, otlpwire.SpanLinks: // edited later, so their type matters
		if wire != want {
			err = errWireType
		}
		return false, err
	default:
		return false, nil
	}
	if wire != want {
		return true, errWireType
	}
	switch field {
	case otlpwire.SpanTraceID:
		err = setID(s.TraceID[:], v)
	case otlpwire.SpanSpanID:
		err = setID(s.SpanID[:], v)
	case otlpwire.SpanParentID:
		err = setID(s.ParentID[:], v)
	case otlpwire.SpanTraceState:
		s.TraceState, err = textOf(v)
	case otlpwire.SpanName:
		s.Name, err = textOf(v)
	case otlpwire.SpanKind:
		kind, _ := protowire.ConsumeVarint(v)
		if kind > math.MaxInt32 {
			return true, errRange
		}
		s.Kind = tracepb.Span_SpanKind(kind)
	case otlpwire.SpanStart:
		s.Start = binary.LittleEndian.Uint64(v)
	case otlpwire.SpanEnd:
		s.End = binary.LittleEndian.Uint64(v)
	case otlpwire.SpanFlags:
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

func textOf(v []byte) (string, error) {
	v, _ = protowire.ConsumeBytes(v)
	if !utf8.Valid(v) {
		return "", errNotText
	}
	return string(v), nil
}

func bytesOf(wire protowire.Type, v []byte) ([]byte, error) {
	if wire != protowire.BytesType {
		return nil, errWireType
	}
	v, _ = protowire.ConsumeBytes(v)
	return v, nil
}

func nameOf(wire protowire.Type, v []byte) (string, error) {
	v, err := bytesOf(wire, v)
	if err == nil && (len(v) > maxID || !utf8.Valid(v)) {
		err = errName
	}
	return string(v), err
}
