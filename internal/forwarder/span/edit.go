package span

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
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
	for rest := s.rest; len(rest) > 0; {
		field, value, n := consume(rest)
		if field == otlpwire.SpanEvents {
			for inner := value; len(inner) > 0; {
				field, at, n := consume(inner)
				if field == otlpwire.EventTime && len(at) == 8 {
					binary.LittleEndian.PutUint64(at, to(binary.LittleEndian.Uint64(at)))
				}
				inner = inner[n:]
			}
		}
		rest = rest[n:]
	}
}

// KeepLinks drops the links for which keep returns false, and counts them as dropped. keep may
// change a link's trace id.
func (s *Span) KeepLinks(keep func(traceID *[16]byte) bool) {
	if !s.linked {
		return
	}
	kept, dropped := s.rest[:0], uint64(0)
	for rest := s.rest; len(rest) > 0; {
		field, value, n := consume(rest)
		whole := rest[:n]
		rest = rest[n:]
		switch {
		case field == otlpwire.SpanLinks && !keepLink(value, keep):
			dropped++
		case field == otlpwire.SpanDroppedLinks:
			before, _ := protowire.ConsumeVarint(value)
			dropped += before
		default:
			kept = append(kept, whole...)
		}
	}
	if s.rest = kept; dropped > 0 {
		s.rest = otlpwire.AppendVarint(s.rest, otlpwire.SpanDroppedLinks, dropped)
	}
}

// keepLink checks each trace id of a link: a guest may have written several, of which readers
// take the last.
func keepLink(link []byte, keep func(traceID *[16]byte) bool) (kept bool) {
	for len(link) > 0 {
		field, id, n := consume(link)
		if field == otlpwire.LinkTraceID {
			if kept = len(id) == 16 && keep((*[16]byte)(id)); !kept {
				return false
			}
		}
		link = link[n:]
	}
	return kept
}

// consume returns the first field of a valid message: its number, its value without a length
// prefix, and the length of the whole field.
func consume(b []byte) (field protowire.Number, value []byte, n int) {
	field, wire, head := protowire.ConsumeTag(b)
	n = head + protowire.ConsumeFieldValue(field, wire, b[head:])
	value = b[head:n:n]
	if wire == protowire.BytesType {
		value, _ = protowire.ConsumeBytes(value)
	}
	return field, value, n
}
