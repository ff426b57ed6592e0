package agent

import (
	"math"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

func (d *Decoder) jsonAttributeMap(s *jsonScan) {
	s.expect('{')
	for n := 0; s.more(n, '}'); n++ {
		switch string(d.jsonKey(s)) {
		case "map":
			s.expect('{')
			for n := 0; s.more(n, '}'); n++ {
				key, size := s.text(span.MaxKey, &d.key)
				s.expect(':')
				d.jsonAttribute(s, key, size)
			}
		case "dropped_count":
			d.out.DroppedAttributes(s.u32())
		default: // evict_list, max_len
			s.skip()
		}
	}
}

func (d *Decoder) jsonAttribute(s *jsonScan, key []byte, size int) {
	want := d.out.Want(key, size)
	if v := d.jsonValue(s, ask(key, want)); s.ok() {
		d.put(key, want, v)
	}
}

// jsonAttributeList reads the attributes of an event or link. A value before its key is read
// once the key has decided what to do with it.
func (d *Decoder) jsonAttributeList(s *jsonScan) {
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
				k, size = s.text(span.MaxKey, &d.text)
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
			s.fail(losses.Malformed)
		}
		if end := s.i; s.ok() {
			s.i = at
			d.jsonAttribute(s, key, size)
			if s.ok() {
				s.i = end
			}
		}
	}
}

// jsonValue reads {"String":"x"}, {"Array":{"I64":[1]}} and the like. A value of an unknown
// type becomes its length as written.
func (d *Decoder) jsonValue(s *jsonScan, want int) (v span.Value) {
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

// jsonVariant reads a value's type. It uses other scratch than the attribute's key, which is
// still in use.
func (d *Decoder) jsonVariant(s *jsonScan) jsonKind {
	name, _ := s.text(span.MaxKey, &d.text)
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

func (d *Decoder) jsonArrayOf(s *jsonScan, kind jsonKind, want int) span.Value {
	d.array.Begin(want)
	s.expect('[')
	for n := 0; s.more(n, ']'); n++ {
		d.array.Add(d.jsonScalar(s, kind, want))
	}
	return d.array.Value()
}

func (d *Decoder) jsonScalar(s *jsonScan, kind jsonKind, want int) span.Value {
	switch kind {
	case jsonString:
		text, size := s.text(want, &d.text)
		if want == 0 {
			return span.SizeValue(size)
		}
		return span.TextValue(text, size)
	case jsonI64:
		return span.IntValue(s.i64())
	case jsonBool:
		return span.BoolValue(s.bool())
	case jsonF64:
		if s.null() { // not finite; JSON does not say which
			return span.NullValue()
		}
		return span.DoubleValue(math.Float64bits(s.f64()))
	}
	at := s.i
	s.skip()
	return span.SizeValue(s.i - at)
}
