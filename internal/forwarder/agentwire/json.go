package agentwire

import (
	"encoding/binary"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// The agents write objects in the order of the crate's declarations, which is
// not relied on: fields may come in any order, and unknown ones are skipped.

func (d *Decoder) json(payload []byte) (Reason, int) {
	s := &jsonScan{b: payload}
	span := d.span
	var status tracepb.Status_StatusCode
	var message []byte
	// Limits hold for the span, not for one of several fields of the same name.
	list := attributes{field: spanAttributes}
	events, links := d.events(), d.links()

	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "span_context":
			d.setContext(d.jsonContext(s))
		case "parent_span_id":
			binary.BigEndian.PutUint64(span.ParentID[:], s.u64())
		case "span_kind":
			span.Kind = d.jsonSpanKind(s)
		case "name":
			span.Name = d.names.get(d.jsonText(s))
		case "start_time":
			span.Start = d.jsonTime(s)
		case "end_time":
			span.End = d.jsonTime(s)
		case "attributes":
			d.jsonAttributeMap(s, &list)
		case "events":
			d.jsonQueue(s, &events)
		case "links":
			d.jsonQueue(s, &links)
		case "status_code":
			status = d.jsonStatus(s)
		case "status_message":
			message = append(message[:0], d.jsonText(s)...)
		default: // the resource too, which the host knows better
			s.skip()
		}
	}
	d.putStatus(status, message)
	if s.peek(); s.ok() && s.i != len(s.b) {
		s.fail(Malformed)
	}
	return s.failed, s.i
}

// jsonKey reads the key of an object's field.
func (d *Decoder) jsonKey(s *jsonScan) []byte {
	key, _ := s.text(maxKey, &d.key)
	s.expect(':')
	return key
}

// jsonText reads a name or message.
func (d *Decoder) jsonText(s *jsonScan) []byte {
	text, size := s.text(d.opts.MaxValue, &d.text)
	if len(text) < size {
		d.cut++
	}
	return text
}

func (d *Decoder) jsonSpanKind(s *jsonScan) tracepb.Span_SpanKind {
	switch string(d.jsonText(s)) {
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
	s.fail(Malformed)
	return 0
}

func (d *Decoder) jsonStatus(s *jsonScan) tracepb.Status_StatusCode {
	switch string(d.jsonText(s)) {
	case "Unset":
		return tracepb.Status_STATUS_CODE_UNSET
	case "Ok":
		return tracepb.Status_STATUS_CODE_OK
	case "Error":
		return tracepb.Status_STATUS_CODE_ERROR
	}
	s.fail(Malformed)
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

func (d *Decoder) jsonContext(s *jsonScan) (ctx spanContext) {
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
		key, _ := s.text(d.opts.MaxValue+1, &d.key)
		s.expect(',')
		val, _ := s.text(d.opts.MaxValue+1, &d.text)
		s.expect(']')
		d.putState(key, val)
	}
	return d.stateHeader()
}

// jsonQueue reads the queue of a span's events or links.
func (d *Decoder) jsonQueue(s *jsonScan, l *items) {
	var dropped uint32
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "queue":
			if s.null() {
				break
			}
			s.expect('[')
			for n := 0; s.more(n, ']'); n++ {
				if l.field == spanEvents {
					d.jsonEvent(s, l)
				} else {
					d.jsonLink(s, l)
				}
			}
		case "dropped_count":
			dropped = s.u32()
		default: // max_len
			s.skip()
		}
	}
	d.putDropped(l.droppedField, dropped, l.dropped)
}

func (d *Decoder) jsonEvent(s *jsonScan, l *items) {
	at := d.mark()
	list := attributes{field: eventAttributes}
	var dropped uint32
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "name":
			if name := d.free(d.jsonText(s)); len(name) > 0 {
				d.rest = appendBytes(d.rest, eventName, name)
			}
		case "timestamp":
			d.rest = appendFixed64(d.rest, eventTime, d.jsonTime(s))
		case "attributes":
			d.jsonAttributeList(s, &list)
		case "dropped_attributes_count":
			dropped = s.u32()
		default:
			s.skip()
		}
	}
	d.putDropped(eventDroppedAttributes, dropped, list.dropped)
	d.sealItem(l, at, true)
}

func (d *Decoder) jsonLink(s *jsonScan, l *items) {
	at := d.mark()
	list := attributes{field: linkAttributes}
	var valid bool
	var dropped uint32
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "span_context":
			valid = d.putLinkContext(d.jsonContext(s))
		case "attributes":
			d.jsonAttributeList(s, &list)
		case "dropped_attributes_count":
			dropped = s.u32()
		default:
			s.skip()
		}
	}
	d.putDropped(linkDroppedAttributes, dropped, list.dropped)
	d.sealItem(l, at, valid)
}
