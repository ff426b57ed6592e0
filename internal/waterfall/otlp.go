package waterfall

import (
	"encoding/binary"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// codeError is STATUS_CODE_ERROR (opentelemetry/proto/trace/v1/trace.proto).
const codeError = 2

var errWire = errors.New("waterfall: not an OTLP message")

// cursor steps through the fields of a message. Journals are read by field, without decoding
// whole messages: a decoded message takes up to a hundred times its size on the wire, and a
// journal's writers determine its size.
type cursor struct {
	rest []byte
	err  error

	num   protowire.Number
	typ   protowire.Type
	value uint64 // of a number, of any width
	bytes []byte // of a text, bytes or message
}

// next moves to the next field and reports whether there is one.
func (c *cursor) next() bool {
	if len(c.rest) == 0 || c.err != nil {
		return false
	}
	num, typ, n := protowire.ConsumeTag(c.rest)
	if n < 0 {
		c.err = errWire
		return false
	}
	c.num, c.typ, c.value, c.bytes = num, typ, 0, nil
	body := c.rest[n:]
	m := -1
	switch typ {
	case protowire.VarintType:
		c.value, m = protowire.ConsumeVarint(body)
	case protowire.Fixed64Type:
		if len(body) >= 8 {
			c.value, m = binary.LittleEndian.Uint64(body), 8
		}
	case protowire.Fixed32Type:
		if len(body) >= 4 {
			c.value, m = uint64(binary.LittleEndian.Uint32(body)), 4
		}
	case protowire.BytesType:
		c.bytes, m = protowire.ConsumeBytes(body)
	default:
		m = protowire.ConsumeFieldValue(num, typ, body)
	}
	if m < 0 {
		c.err = errWire
		return false
	}
	c.rest = body[m:]
	return true
}

// is reports whether the field is num and length-delimited.
func (c *cursor) is(num protowire.Number) bool {
	return c.num == num && c.typ == protowire.BytesType
}

// isTime reports whether the field is num and a time.
func (c *cursor) isTime(num protowire.Number) bool {
	return c.num == num && c.typ == protowire.Fixed64Type
}

// bytesOf returns the last field num of a message, nil if it has none.
func bytesOf(msg []byte, num protowire.Number) (last []byte) {
	for c := (cursor{rest: msg}); c.next(); {
		if c.is(num) {
			last = c.bytes
		}
	}
	return last
}

// reader reads TracesData messages. It remembers resources, which recur.
type reader struct {
	others bool // the messages are other programs'
	known  map[string]*resource
	bytes  int
	last   *resource
}

// Bounds of what a reader remembers. At a bound it starts anew.
const (
	maxResources     = 1024
	maxResourceBytes = 1 << 20
)

// each calls f for every span of a TracesData message. The span's bytes are valid until
// each returns.
func (r *reader) each(data []byte, f func(res *resource, by Maker, span []byte)) error {
	top := cursor{rest: data}
	for top.next() {
		if !top.is(otlpwire.DataResourceSpans) {
			continue
		}
		res := r.resource(bytesOf(top.bytes, otlpwire.ResourceSpansResource))
		scopes := cursor{rest: top.bytes}
		for scopes.next() {
			if !scopes.is(otlpwire.ResourceSpansScopes) {
				continue
			}
			by := res.maker(bytesOf(bytesOf(scopes.bytes, otlpwire.ScopeSpansScope), otlpwire.ScopeName))
			spans := cursor{rest: scopes.bytes}
			for spans.next() {
				if spans.is(otlpwire.ScopeSpansSpans) {
					f(res, by, spans.bytes)
				}
			}
			if spans.err != nil {
				return spans.err
			}
		}
		if scopes.err != nil {
			return scopes.err
		}
	}
	return top.err
}

func (r *reader) resource(msg []byte) *resource {
	if r.last != nil && r.last.raw == string(msg) {
		return r.last
	}
	res := r.known[string(msg)]
	if res == nil {
		if r.known == nil || len(r.known) >= maxResources || r.bytes+len(msg) > maxResourceBytes {
			r.known, r.bytes = make(map[string]*resource), 0
		}
		if res = newResource(msg); r.others {
			res.disown()
		}
		r.known[res.raw] = res
		r.bytes += len(msg)
	}
	r.last = res
	return res
}
