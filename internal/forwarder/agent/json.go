package agent

import (
	"encoding/binary"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// The agents write an object's fields in the order of the crate's declarations. The decoder
// does not rely on that: it takes fields in any order and skips unknown ones.

func (d *Decoder) json(payload []byte) (losses.Reason, int) {
	s := &jsonScan{b: payload}
	out := d.span
	var status tracepb.Status_StatusCode
	var message []byte
	var messageSize int

	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "span_context":
			d.setContext(d.jsonContext(s))
		case "parent_span_id":
			binary.BigEndian.PutUint64(out.ParentID[:], s.u64())
		case "span_kind":
			out.Kind = d.jsonSpanKind(s)
		case "name":
			d.out.Name(d.jsonText(s))
		case "start_time":
			out.Start = d.jsonTime(s)
		case "end_time":
			out.End = d.jsonTime(s)
		case "attributes":
			d.jsonAttributeMap(s)
		case "events":
			d.out.DroppedEvents(d.jsonQueue(s, true))
		case "links":
			d.out.DroppedLinks(d.jsonQueue(s, false))
		case "status_code":
			status = d.jsonStatus(s)
		case "status_message":
			var text []byte
			text, messageSize = d.jsonText(s)
			message = append(message[:0], text...)
		default: // the resource too; the host knows it better
			s.skip()
		}
	}
	d.out.Status(status, message, messageSize)
	if s.peek(); s.ok() && s.i != len(s.b) {
		s.fail(losses.Malformed)
	}
	return s.failed, s.i
}

// jsonKey reads the key of an object's field.
func (d *Decoder) jsonKey(s *jsonScan) []byte {
	key, _ := s.text(span.MaxKey, &d.key)
	s.expect(':')
	return key
}

// jsonText reads a name or message.
func (d *Decoder) jsonText(s *jsonScan) (text []byte, size int) {
	return s.text(d.out.MaxText(), &d.text)
}

// jsonWord reads the name of a variant.
func (d *Decoder) jsonWord(s *jsonScan) []byte {
	word, _ := d.jsonText(s)
	return word
}

func (d *Decoder) jsonSpanKind(s *jsonScan) tracepb.Span_SpanKind {
	switch string(d.jsonWord(s)) {
	case "Client":
		return tracepb.Span_SPAN_KIND_CLIENT
	case "Server":
		return tracepb.Span_SPAN_KIND_SERVER
	case "Producer":
		return tracepb.Span_SPAN_KIND_PRODUCER
	case "Consumer":
		return tracepb.Span_SPAN_KIND_CONSUMER
	case "Internal":
		return tracepb.Span_SPAN_KIND_INTERNAL
	}
	s.fail(losses.Malformed)
	return 0
}

func (d *Decoder) jsonStatus(s *jsonScan) tracepb.Status_StatusCode {
	switch string(d.jsonWord(s)) {
	case "Unset":
		return tracepb.Status_STATUS_CODE_UNSET
	case "Ok":
		return tracepb.Status_STATUS_CODE_OK
	case "Error":
		return tracepb.Status_STATUS_CODE_ERROR
	}
	s.fail(losses.Malformed)
	return 0
}

func (d *Decoder) jsonTime(s *jsonScan) uint64 {
	var secs uint64
	var nanos uint32
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "secs_since_epoch":
			secs = s.u64()
		case "nanos_since_epoch":
			nanos = s.u32()
		default:
			s.skip()
		}
	}
	return unixNano(secs, nanos)
}

func (d *Decoder) jsonContext(s *jsonScan) (ctx context) {
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "trace_id":
			hi, lo := s.u128()
			binary.BigEndian.PutUint64(ctx.traceID[:8], hi)
			binary.BigEndian.PutUint64(ctx.traceID[8:], lo)
		case "span_id":
			binary.BigEndian.PutUint64(ctx.spanID[:], s.u64())
		case "trace_flags":
			ctx.flags = s.u8()
		case "is_remote":
			ctx.remote = s.bool()
		case "trace_state":
			ctx.state = d.jsonState(s)
		default:
			s.skip()
		}
	}
	return ctx
}

func (d *Decoder) jsonState(s *jsonScan) []byte {
	d.state = d.state[:0]
	if s.null() {
		return nil
	}
	s.expect('[')
	for n := 0; s.more(n, ']'); n++ {
		s.expect('[')
		key, _ := s.text(d.out.MaxText()+1, &d.key)
		s.expect(',')
		val, _ := s.text(d.out.MaxText()+1, &d.text)
		s.expect(']')
		d.putState(key, val)
	}
	return d.state
}

// jsonQueue reads the queue of a span's events or links, and returns how many the agent
// dropped.
func (d *Decoder) jsonQueue(s *jsonScan, events bool) (dropped uint32) {
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "queue":
			if s.null() {
				break
			}
			s.expect('[')
			for n := 0; s.more(n, ']'); n++ {
				if events {
					d.jsonEvent(s)
				} else {
					d.jsonLink(s)
				}
			}
		case "dropped_count":
			dropped = s.u32()
		default: // max_len
			s.skip()
		}
	}
	return dropped
}

func (d *Decoder) jsonEvent(s *jsonScan) {
	d.out.BeginEvent()
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "name":
			d.out.EventName(d.jsonText(s))
		case "timestamp":
			d.out.EventTime(d.jsonTime(s))
		case "attributes":
			d.jsonAttributeList(s)
		case "dropped_attributes_count":
			d.out.DroppedAttributes(s.u32())
		default:
			s.skip()
		}
	}
	d.out.EndEvent()
}

func (d *Decoder) jsonLink(s *jsonScan) {
	d.out.BeginLink()
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "span_context":
			d.setLink(d.jsonContext(s))
		case "attributes":
			d.jsonAttributeList(s)
		case "dropped_attributes_count":
			d.out.DroppedAttributes(s.u32())
		default:
			s.skip()
		}
	}
	d.out.EndLink()
}
