package endpoint

import (
	"bytes"
	"math"
	"unicode/utf8"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Values of TagType in jaeger.thrift.
const (
	isString = iota
	isDouble
	isBool
	isLong
	isBinary
)

// tag is a Tag of jaeger.thrift. Its byte slices are slices of the body.
type tag struct {
	key    []byte
	is     int32
	str    []byte
	double float64
	bool   bool
	long   int64
	binary []byte
}

func readTag(r *reader) (g tag) {
	for {
		id, is, more := r.field()
		switch {
		case !more:
			return g
		case id == 1 && is == thrift.STRING:
			g.key = r.text()
		case id == 2 && is == thrift.I32:
			g.is = r.i32()
		case id == 3 && is == thrift.STRING:
			g.str = r.text()
		case id == 4 && is == thrift.DOUBLE:
			g.double = r.float()
		case id == 5 && is == thrift.BOOL:
			g.bool = r.bool()
		case id == 6 && is == thrift.I64:
			g.long = r.i64()
		case id == 7 && is == thrift.STRING:
			g.binary = r.text()
		default:
			r.skip(is)
		}
	}
}

// attribute turns a tag into an attribute of the current span, unless OTLP has a field
// for it.
func (d *decoder) attribute(g tag, t *traits) {
	if !t.take(g) {
		d.put(g)
	}
}

// put turns a tag into an attribute of the current span or event. A text that is not
// UTF-8 becomes its size.
func (d *decoder) put(g tag) {
	key := g.key
	if !utf8.Valid(key) {
		key = nil
	}
	want := d.builder.Want(key, len(g.key))
	var v span.Value
	switch g.is {
	case isString:
		v = span.SizeValue(len(g.str))
		if want > 0 {
			if text := span.CutText(g.str, want, true); utf8.Valid(text) {
				v = span.TextValue(text, len(g.str))
			}
		}
	case isDouble:
		v = span.DoubleValue(math.Float64bits(g.double))
	case isBool:
		v = span.BoolValue(g.bool)
	case isLong:
		v = span.IntValue(g.long)
	default: // binary, or a future type
		v = span.SizeValue(len(g.binary))
	}
	d.builder.Put(key, want, v)
}

// text returns a name or message, cut and made valid UTF-8 as OTLP requires, and its
// original size in bytes.
func (d *decoder) text(text []byte) ([]byte, int) {
	cut := span.CutText(text, d.builder.MaxText(), true)
	if !utf8.Valid(cut) {
		cut = bytes.ToValidUTF8(cut, []byte("?")) // not longer than before
	}
	return cut, len(text)
}

// event reads a Log, Jaeger's word for an event.
func (d *decoder) event(r *reader) {
	d.builder.BeginEvent()
	var at int64
	for {
		id, is, more := r.field()
		if !more {
			break
		}
		switch {
		case id == 1 && is == thrift.I64:
			at = r.i64()
		case id == 2 && is == thrift.LIST:
			for n := r.list(thrift.STRUCT); n > 0 && r.err == nil; n-- {
				g := readTag(r)
				if string(g.key) == "event" && g.is == isString {
					d.builder.EventName(d.text(g.str))
				} else {
					d.put(g)
				}
			}
		default:
			r.skip(is)
		}
	}
	d.builder.EventTime(unixNano(at))
	d.builder.EndEvent()
}
