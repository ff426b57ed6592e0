package agentwire

import (
	"bytes"
	"math"
	"unicode/utf8"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Builder makes spans of what came by another wire than the agent's, by the rules
// that a Decoder has: attributes pass by list, everything has its limit. Texts need
// not be UTF-8. It keeps its buffers from span to span and no part of what it is
// given; it is not safe for concurrent use.
//
// Between Begin and End come the calls for one span, in any order, but those for an
// event between BeginEvent and EndEvent.
type Builder struct {
	d     Decoder
	list  *attributes // of the span or of the event at hand
	span  attributes
	event attributes
	at    mark // where the event began
	all   struct{ events, links items }
}

// NewBuilder returns a Builder that obeys opts, all but opts.MaxFrame.
func NewBuilder(opts Options) *Builder {
	b := &Builder{d: *NewDecoder(opts)}
	b.list = &b.span
	return b
}

// Begin begins a span in s, replacing what was there.
func (b *Builder) Begin(s *Span) {
	d := &b.d
	*s = Span{}
	d.span, d.rest = s, d.rest[:0]
	d.reset()
	b.list, b.span = &b.span, attributes{field: spanAttributes}
	b.all.events, b.all.links = d.events(), d.links()
}

// Name sets the span's name.
func (b *Builder) Name(name []byte) { b.d.span.Name = b.d.names.get(b.text(name)) }

// ID returns the text as a string if it can be a container's id or an exec's, else
// an empty one.
func (b *Builder) ID(text []byte) string {
	if !validID(text) {
		return ""
	}
	return b.d.names.get(text)
}

// Process sets the ids of the container and of the exec that the span is about, as
// far as they can be ids; an exec of the container's own id is its first process.
func (b *Builder) Process(container, exec []byte) {
	if !validID(container) {
		return
	}
	if !validID(exec) || bytes.Equal(exec, container) {
		exec = nil
	}
	b.d.putProcess(&b.span, container, exec)
}

// String adds an attribute, or its size where the list does not have it, or where it
// is not UTF-8.
func (b *Builder) String(key, text []byte) {
	f := b.fate(key)
	v := value{size: len(text)}
	if f == keep {
		if cut := cutText(text, b.d.opts.MaxValue, true); utf8.Valid(cut) {
			v.kind, v.text = textValue, cut
		}
	}
	b.d.put(b.list, key, f, v)
}

// Bytes adds the size of an attribute that is not text.
func (b *Builder) Bytes(key, data []byte) {
	b.d.put(b.list, key, b.fate(key), value{size: len(data)})
}

// Int adds an attribute, as String does.
func (b *Builder) Int(key []byte, n int64) {
	b.d.put(b.list, key, b.fate(key), value{kind: intValue, bits: uint64(n), size: 8})
}

// Double adds an attribute, as String does.
func (b *Builder) Double(key []byte, x float64) {
	b.d.put(b.list, key, b.fate(key), value{kind: doubleValue, bits: math.Float64bits(x), size: 8})
}

// Bool adds an attribute, as String does.
func (b *Builder) Bool(key []byte, is bool) {
	v := value{kind: boolValue, size: 1}
	if is {
		v.bits = 1
	}
	b.d.put(b.list, key, b.fate(key), v)
}

// fate is the Decoder's, but for requests: ids are found by who knows the wire.
func (b *Builder) fate(key []byte) fate {
	if len(key) > maxKey || !utf8.Valid(key) {
		return drop
	}
	return b.d.fateOf(key, len(key)) &^ request
}

// BeginEvent begins an event; attributes are its own until EndEvent.
func (b *Builder) BeginEvent() {
	b.at = b.d.mark()
	b.event = attributes{field: eventAttributes}
	b.list = &b.event
}

// EventName sets the event's name.
func (b *Builder) EventName(name []byte) {
	b.d.rest = appendBytes(b.d.rest, eventName, b.d.free(b.text(name)))
}

// EndEvent ends it; unixNano is its time.
func (b *Builder) EndEvent(unixNano uint64) {
	b.d.rest = appendFixed64(b.d.rest, eventTime, unixNano)
	b.d.putDropped(eventDroppedAttributes, 0, b.event.dropped)
	b.d.sealItem(&b.all.events, b.at, true)
	b.list = &b.span
}

// Link adds a link without attributes.
func (b *Builder) Link(traceID [16]byte, spanID [8]byte) {
	at := b.d.mark()
	b.d.rest = appendBytes(b.d.rest, linkTraceID, traceID[:])
	b.d.rest = appendBytes(b.d.rest, linkSpanID, spanID[:])
	b.d.sealItem(&b.all.links, at, traceID != [16]byte{} && spanID != [8]byte{})
}

// Status sets the span's status, once.
func (b *Builder) Status(code tracepb.Status_StatusCode, message []byte) {
	b.d.putStatus(code, b.text(message))
}

// End ends the span and counts it. A span that is begun and not ended was none.
func (b *Builder) End() {
	d := &b.d
	d.putDropped(spanDroppedAttributes, 0, b.span.dropped)
	for _, l := range []*items{&b.all.events, &b.all.links} {
		d.putDropped(l.droppedField, 0, l.dropped)
	}
	d.span.rest, d.span.cost = bytes.Clone(d.rest), d.cost
	d.span = nil
	if cap(d.rest) > maxScratch {
		d.rest = nil
	}
	c := d.opts.Counters
	c.Spans.Add(1)
	c.Reduced.Add(d.reduced)
	c.Cut.Add(d.cut)
	c.Dropped.Add(d.dropped)
}

// text is a name or message as OTLP can have it.
func (b *Builder) text(text []byte) []byte {
	cut := cutText(text, b.d.opts.MaxValue, true)
	if len(cut) < len(text) {
		b.d.cut++
	}
	if !utf8.Valid(cut) {
		cut = bytes.ToValidUTF8(cut, []byte("?")) // not longer than it was
	}
	return cut
}
