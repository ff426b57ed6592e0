package agentwire

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// The agents write objects in the order of the crate's declarations, which is
// not relied on: fields may come in any order, and unknown ones are skipped.

func (d *Decoder) json(payload []byte) (Reason, int) {
	s := &jsonScan{b: payload}
	span := d.span
	var status tracepb.Status_StatusCode
	var message []byte

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
			d.jsonAttributeMap(s)
		case "events":
			d.jsonQueue(s, spanDroppedEvents, d.jsonEvents)
		case "links":
			d.jsonQueue(s, spanDroppedLinks, d.jsonLinks)
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

func (d *Decoder) jsonAttributeMap(s *jsonScan) {
	list := attributes{field: spanAttributes}
	var dropped uint32
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "map":
			s.expect('{')
			for n := 0; s.more(n, '}'); n++ {
				key, size := s.text(maxKey, &d.key)
				s.expect(':')
				d.jsonAttribute(s, &list, key, size)
			}
		case "dropped_count":
			dropped = s.u32()
		default: // evict_list, max_len
			s.skip()
		}
	}
	d.putDropped(spanDroppedAttributes, dropped, list.dropped)
}

func (d *Decoder) jsonAttribute(s *jsonScan, list *attributes, key []byte, size int) {
	f := d.fateOf(key, size)
	if v := d.jsonValue(s, d.want(f)); s.ok() {
		d.put(list, key, f, v)
	}
}

// jsonAttributeList reads the attributes of an event or link. A value that comes
// before its key waits, unread, until the key has decided what becomes of it.
func (d *Decoder) jsonAttributeList(s *jsonScan, list *attributes) {
	var key []byte
	s.expect('[')
	for n := 0; s.more(n, ']'); n++ {
		key = key[:0]
		size, at := 0, -1
		s.expect('{')
		for n := 0; s.more(n, '}'); n++ {
			switch string(d.jsonKey(s)) {
			case "key":
				var k []byte
				k, size = s.text(maxKey, &d.text)
				key = append(key[:0], k...)
			case "value":
				s.peek()
				at = s.i
				s.skip()
			default:
				s.skip()
			}
		}
		if at < 0 {
			s.fail(Malformed)
		}
		if end := s.i; s.ok() {
			s.i = at
			d.jsonAttribute(s, list, key, size)
			if s.ok() {
				s.i = end
			}
		}
	}
}

// jsonQueue reads the queue of a span's events or links, the list of which is
// left to items.
func (d *Decoder) jsonQueue(s *jsonScan, field protowire.Number, items func(*jsonScan) uint64) {
	var dropped uint32
	var here uint64
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "queue":
			if !s.null() {
				here += items(s)
			}
		case "dropped_count":
			dropped = s.u32()
		default: // max_len
			s.skip()
		}
	}
	d.putDropped(field, dropped, here)
}

func (d *Decoder) jsonEvents(s *jsonScan) (dropped uint64) {
	var count int
	s.expect('[')
	for n := 0; s.more(n, ']'); n++ {
		at := len(d.rest)
		list := attributes{field: eventAttributes}
		var agentDropped uint32
		s.expect('{')
		for n := 0; s.more(n, '}'); n++ {
			switch string(d.jsonKey(s)) {
			case "name":
				if name := d.jsonText(s); len(name) > 0 {
					d.rest = appendBytes(d.rest, eventName, name)
				}
			case "timestamp":
				d.rest = appendFixed64(d.rest, eventTime, d.jsonTime(s))
			case "attributes":
				d.jsonAttributeList(s, &list)
			case "dropped_attributes_count":
				agentDropped = s.u32()
			default:
				s.skip()
			}
		}
		d.putDropped(eventDroppedAttributes, agentDropped, list.dropped)
		d.sealItem(at, spanEvents, true, &count, d.opts.MaxEvents, &dropped)
	}
	return dropped
}

func (d *Decoder) jsonLinks(s *jsonScan) (dropped uint64) {
	var count int
	s.expect('[')
	for n := 0; s.more(n, ']'); n++ {
		at := len(d.rest)
		list := attributes{field: linkAttributes}
		var valid bool
		var agentDropped uint32
		s.expect('{')
		for n := 0; s.more(n, '}'); n++ {
			switch string(d.jsonKey(s)) {
			case "span_context":
				valid = d.putLinkContext(d.jsonContext(s))
			case "attributes":
				d.jsonAttributeList(s, &list)
			case "dropped_attributes_count":
				agentDropped = s.u32()
			default:
				s.skip()
			}
		}
		d.putDropped(linkDroppedAttributes, agentDropped, list.dropped)
		d.sealItem(at, spanLinks, valid, &count, d.opts.MaxLinks, &dropped)
	}
	return dropped
}

// jsonValue reads {"String":"x"}, {"Array":{"I64":[1]}} and the like. A type that
// is not known is dropped with its length as written.
func (d *Decoder) jsonValue(s *jsonScan, want int) (v value) {
	s.expect('{')
	kind := d.jsonVariant(s)
	if kind == jsonArray {
		s.expect('{')
		v = d.jsonArrayOf(s, d.jsonVariant(s), want)
		s.expect('}')
	} else {
		v = d.jsonScalar(s, kind, want)
	}
	s.expect('}')
	return v
}

type jsonKind uint8

const (
	jsonUnknown jsonKind = iota
	jsonBool
	jsonI64
	jsonF64
	jsonString
	jsonArray
)

// jsonVariant reads a value's type. Its key has scratch of its own: the
// attribute's key is still in use.
func (d *Decoder) jsonVariant(s *jsonScan) jsonKind {
	name, _ := s.text(maxKey, &d.text)
	s.expect(':')
	switch string(name) {
	case "String":
		return jsonString
	case "I64":
		return jsonI64
	case "Bool":
		return jsonBool
	case "F64":
		return jsonF64
	case "Array":
		return jsonArray
	}
	return jsonUnknown
}

func (d *Decoder) jsonArrayOf(s *jsonScan, kind jsonKind, want int) value {
	d.array.reset()
	s.expect('[')
	for n := 0; s.more(n, ']'); n++ {
		d.array.add(d.jsonScalar(s, kind, want), want)
	}
	return d.array.value(want)
}

func (d *Decoder) jsonScalar(s *jsonScan, kind jsonKind, want int) value {
	switch kind {
	case jsonString:
		text, size := s.text(want, &d.text)
		if want == 0 {
			return value{size: size}
		}
		return value{kind: textValue, text: text, size: size}
	case jsonI64:
		return value{kind: intValue, bits: uint64(s.i64()), size: 8}
	case jsonBool:
		v := value{kind: boolValue, size: 1}
		if s.bool() {
			v.bits = 1
		}
		return v
	case jsonF64:
		if s.null() { // not finite: which of the three, JSON does not say
			return value{kind: nullValue, size: 8}
		}
		return value{kind: doubleValue, bits: math.Float64bits(s.f64()), size: 8}
	}
	at := s.i
	s.skip()
	return value{size: s.i - at}
}
