package agentwire

import "math"

func (d *Decoder) jsonAttributeMap(s *jsonScan, list *attributes) {
	var dropped uint32
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "map":
			s.expect('{')
			for n := 0; s.more(n, '}'); n++ {
				key, size := s.text(maxKey, &d.key)
				s.expect(':')
				d.jsonAttribute(s, list, key, size)
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
