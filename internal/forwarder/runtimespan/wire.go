package runtimespan

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/forwarder/agentwire"
)

// MaxSize is the length in bytes of the longest span that Parse takes. Spans are
// some hundred bytes long once their attributes are reduced.
const MaxSize = 1 << 20

// maxName is the longest method or id in bytes.
const maxName = 128

// A span is written as a protobuf message of these fields, each at most once, the
// empty ones not at all. Relays are older or newer than the endpoint's process, so
// a field keeps its number and meaning for ever, and unknown ones are skipped.
const (
	fieldOTLP        protowire.Number = 1 // an opentelemetry.proto.trace.v1.Span
	fieldMethod      protowire.Number = 2
	fieldSandbox     protowire.Number = 3
	fieldContainerID protowire.Number = 4
	fieldExecID      protowire.Number = 5
	fieldFailed      protowire.Number = 6 // a bool
)

// Append appends the span as Parse reads it. The message does not say how long it
// is: that is the link's to tell.
func (s *Span) Append(b []byte) []byte {
	b = protowire.AppendTag(b, fieldOTLP, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(s.Span.Size()))
	b = s.AppendOTLP(b)
	for _, f := range []struct {
		field protowire.Number
		text  string
	}{
		{fieldMethod, s.Method},
		{fieldSandbox, s.Sandbox},
		{fieldContainerID, s.ContainerID},
		{fieldExecID, s.ExecID},
	} {
		if f.text != "" {
			b = protowire.AppendTag(b, f.field, protowire.BytesType)
			b = protowire.AppendString(b, f.text)
		}
	}
	if s.Failed {
		b = protowire.AppendTag(b, fieldFailed, protowire.VarintType)
		b = protowire.AppendVarint(b, 1)
	}
	return b
}

var (
	errNoSpan   = errors.New("there is no span in it, or one without ids")
	errWireType = errors.New("another wire type than the field's")
	errName     = fmt.Errorf("not UTF-8 of at most %d bytes", maxName)
)

// Parse reads one span that Append wrote and keeps no part of b. What it returns
// has a trace id and a span id. It allocates in proportion to b's length, which is
// at most MaxSize.
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
	var otlp []byte
	var method, sandbox, container, exec string
	var failed bool
	for at := 0; at < len(b); {
		field, wire, head := protowire.ConsumeTag(b[at:])
		if head < 0 {
			return fmt.Errorf("byte %d: %w", at, protowire.ParseError(head))
		}
		n := protowire.ConsumeFieldValue(field, wire, b[at+head:])
		if n < 0 {
			return fmt.Errorf("field %d at byte %d: %w", field, at, protowire.ParseError(n))
		}
		v := b[at+head : at+head+n]
		var err error
		switch field {
		case fieldOTLP:
			otlp, err = bytesOf(wire, v)
		case fieldMethod:
			method, err = nameOf(wire, v)
		case fieldSandbox:
			sandbox, err = nameOf(wire, v)
		case fieldContainerID:
			container, err = nameOf(wire, v)
		case fieldExecID:
			exec, err = nameOf(wire, v)
		case fieldFailed:
			if wire != protowire.VarintType {
				err = errWireType
			}
			u, _ := protowire.ConsumeVarint(v)
			failed = u != 0
		}
		if err != nil {
			return fmt.Errorf("field %d at byte %d: %w", field, at, err)
		}
		at += head + n
	}
	if err := agentwire.ParseOTLP(otlp, &s.Span); err != nil {
		return err
	}
	if s.TraceID == [16]byte{} || s.SpanID == [8]byte{} {
		return errNoSpan
	}
	s.Method, s.Sandbox, s.ContainerID, s.ExecID, s.Failed = method, sandbox, container, exec, failed
	return nil
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
	if err == nil && (len(v) > maxName || !utf8.Valid(v)) {
		err = errName
	}
	return string(v), err
}
