package span

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// AddString adds an attribute. The text must be valid UTF-8, and the span must not have the key
// yet.
func (s *Span) AddString(key, text string) {
	s.add(key, TextValue([]byte(text), len(text)))
}

// AddBool adds an attribute, as AddString does.
func (s *Span) AddBool(key string, b bool) { s.add(key, BoolValue(b)) }

// AddInt adds an attribute, as AddString does.
func (s *Span) AddInt(key string, n int64) { s.add(key, IntValue(n)) }

func (s *Span) add(key string, v Value) {
	at := len(s.rest)
	s.rest = appendAttribute(s.rest, otlpwire.SpanAttributes, key, "", v)
	s.cost += costOf(otlpwire.SpanAttributes, s.rest[at:])
}

// AddLink adds a link without attributes.
func (s *Span) AddLink(traceID [16]byte, spanID [8]byte) {
	at := len(s.rest)
	s.rest = otlpwire.AppendBytes(s.rest, otlpwire.LinkTraceID, traceID[:])
	s.rest = otlpwire.AppendBytes(s.rest, otlpwire.LinkSpanID, spanID[:])
	s.rest = seal(s.rest, at, otlpwire.SpanLinks)
	s.cost += costOf(otlpwire.SpanLinks, s.rest[at:])
	s.linked = true
}

// MoveEvents changes the times of the span's events.
func (s *Span) MoveEvents(to func(unixNano uint64) uint64) {
	if !s.eventful {
		return
	}
	for f := protofields.Of(s.rest); f.Next(); {
		if !f.Is(otlpwire.SpanEvents) {
			continue
		}
		for e := protofields.Of(f.Bytes); e.Next(); {
			if e.Has(otlpwire.EventTime, protowire.Fixed64Type) {
				whole := e.Whole()
				binary.LittleEndian.PutUint64(whole[len(whole)-8:], to(e.Value))
			}
		}
	}
}

// KeepLinks drops the links for which keep returns false, and counts them as dropped. keep may
// change a link's trace id.
func (s *Span) KeepLinks(keep func(traceID *[16]byte) bool) {
	if !s.linked {
		return
	}
	kept, dropped := s.rest[:0], uint64(0)
	for f := protofields.Of(s.rest); f.Next(); {
		switch {
		case f.Is(otlpwire.SpanLinks) && !keepLink(f.Bytes, keep):
			dropped++
		case f.Number == otlpwire.SpanDroppedLinks:
			dropped += f.Value
		default:
			kept = append(kept, f.Whole()...)
		}
	}
	if s.rest = kept; dropped > 0 {
		s.rest = otlpwire.AppendVarint(s.rest, otlpwire.SpanDroppedLinks, dropped)
	}
}

// keepLink checks each trace id of a link: a guest may have written several, of which readers
// take the last.
func keepLink(link []byte, keep func(traceID *[16]byte) bool) (kept bool) {
	for f := protofields.Of(link); f.Next(); {
		if f.Number == otlpwire.LinkTraceID {
			if kept = len(f.Bytes) == 16 && keep((*[16]byte)(f.Bytes)); !kept {
				return false
			}
		}
	}
	return kept
}
