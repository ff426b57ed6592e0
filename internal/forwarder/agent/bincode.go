package agent

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Variants of bincode's enums, in the declaration order of crate opentelemetry
// 0.14. JSON writes the same names.
var (
	bincodeKinds = [...]tracepb.Span_SpanKind{
		tracepb.Span_SPAN_KIND_CLIENT,
		tracepb.Span_SPAN_KIND_SERVER,
		tracepb.Span_SPAN_KIND_PRODUCER,
		tracepb.Span_SPAN_KIND_CONSUMER,
		tracepb.Span_SPAN_KIND_INTERNAL,
	}
	bincodeStatuses = [...]tracepb.Status_StatusCode{
		tracepb.Status_STATUS_CODE_UNSET,
		tracepb.Status_STATUS_CODE_OK,
		tracepb.Status_STATUS_CODE_ERROR,
	}
)

const (
	bincodeBool = iota
	bincodeI64
	bincodeF64
	bincodeString
	bincodeArray
	bincodeValues
)

// The fewest bytes that one element of a list takes: a payload cannot announce more elements
// than fit in it.
const (
	bincodeKeyMin       = 8                            // length
	bincodeAttributeMin = 8 + 4 + 1                    // key, variant, bool
	bincodeMemberMin    = 8 + 8                        // key and value of a trace state
	bincodeEventMin     = 8 + (8 + 4) + 8 + 4          // name, time, attributes, dropped
	bincodeLinkMin      = (16 + 8 + 1 + 1 + 1) + 8 + 4 // context, attributes, dropped
)

// bincodeCursor reads bincode 1.3 as bincode::serialize writes it: little-endian, fixed width,
// 64-bit lengths, 32-bit variants. It keeps its first failure and then reads zeros, so that
// callers check once, at the end.
type bincodeCursor struct {
	b      []byte
	i      int
	failed losses.Reason
}

func (c *bincodeCursor) fail(r losses.Reason) {
	if c.failed == 0 {
		c.failed = r
	}
}

func (c *bincodeCursor) ok() bool { return c.failed == 0 }

// take returns the next n bytes, or nil after a failure.
func (c *bincodeCursor) take(n int) []byte {
	if c.failed != 0 || n > len(c.b)-c.i {
		c.fail(losses.Truncated)
		return nil
	}
	p := c.b[c.i : c.i+n : c.i+n]
	c.i += n
	return p
}

func (c *bincodeCursor) u8() uint8 {
	if p := c.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *bincodeCursor) u32() uint32 {
	if p := c.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (c *bincodeCursor) u64() uint64 {
	if p := c.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (c *bincodeCursor) bool() bool {
	b := c.u8()
	if b > 1 {
		c.fail(losses.Malformed)
	}
	return b == 1
}

func (c *bincodeCursor) variant(n int) int {
	v := c.u32()
	if v >= uint32(n) {
		c.fail(losses.Malformed)
		return 0
	}
	return int(v)
}

// length reads the number of elements that take at least size bytes each.
func (c *bincodeCursor) length(size int) int {
	n := c.u64()
	if n > uint64(len(c.b)-c.i)/uint64(size) {
		c.fail(losses.Truncated)
		return 0
	}
	return int(n)
}

// text reads a string and returns at most want bytes of it, and its whole size.
func (c *bincodeCursor) text(want int) (text []byte, size int) {
	text = c.take(c.length(1))
	size = len(text)
	if want == 0 {
		return nil, size
	}
	text = span.CutText(text, want, true)
	if !utf8.Valid(text) {
		c.fail(losses.NotText)
		return nil, size
	}
	return text, size
}

func (c *bincodeCursor) time() uint64 {
	secs := c.u64()
	return unixNano(secs, c.u32())
}

func (d *Decoder) bincode(payload []byte) (losses.Reason, int) {
	c := &bincodeCursor{b: payload}
	s := d.span

	d.setContext(d.bincodeContext(c))
	binary.BigEndian.PutUint64(s.ParentID[:], c.u64())
	s.Kind = bincodeKinds[c.variant(len(bincodeKinds))]
	d.out.Name(d.bincodeText(c))
	s.Start, s.End = c.time(), c.time()

	d.bincodeAttributes(c)
	for n := c.length(bincodeKeyMin); n > 0 && c.ok(); n-- { // the order of eviction
		c.text(0)
	}
	c.u32() // the map's limit
	d.out.DroppedAttributes(c.u32())

	d.bincodeEvents(c)
	d.bincodeLinks(c)
	status := bincodeStatuses[c.variant(len(bincodeStatuses))]
	message, size := d.bincodeText(c)
	d.out.Status(status, message, size)

	if c.bool() { // the resource; the host knows it better
		for n := c.length(bincodeAttributeMin); n > 0 && c.ok(); n-- {
			c.text(0)
			d.bincodeValue(c, 0)
		}
	}
	if c.ok() && c.i != len(c.b) {
		c.fail(losses.Malformed)
	}
	return c.failed, c.i
}

// bincodeText reads a name or message.
func (d *Decoder) bincodeText(c *bincodeCursor) (text []byte, size int) {
	return c.text(d.out.MaxText())
}

func (d *Decoder) bincodeContext(c *bincodeCursor) (ctx context) {
	copy(ctx.traceID[:], c.take(16))
	slices.Reverse(ctx.traceID[:])
	binary.BigEndian.PutUint64(ctx.spanID[:], c.u64())
	ctx.flags = c.u8()
	ctx.remote = c.bool()
	d.state = d.state[:0]
	if c.bool() {
		for n := c.length(bincodeMemberMin); n > 0 && c.ok(); n-- {
			key, _ := c.text(d.out.MaxText() + 1)
			val, _ := c.text(d.out.MaxText() + 1)
			d.putState(key, val)
		}
	}
	ctx.state = d.state
	return ctx
}

// bincodeAttributes reads a map or list of keys and values.
func (d *Decoder) bincodeAttributes(c *bincodeCursor) {
	for n := c.length(bincodeAttributeMin); n > 0 && c.ok(); n-- {
		key, size := c.text(span.MaxKey)
		want := d.out.Want(key, size)
		if v := d.bincodeValue(c, ask(key, want)); c.ok() {
			d.put(key, want, v)
		}
	}
}

func (d *Decoder) bincodeEvents(c *bincodeCursor) {
	if c.bool() {
		for n := c.length(bincodeEventMin); n > 0 && c.ok(); n-- {
			d.out.BeginEvent()
			d.out.EventName(d.bincodeText(c))
			d.out.EventTime(c.time())
			d.bincodeAttributes(c)
			d.out.DroppedAttributes(c.u32())
			d.out.EndEvent()
		}
	}
	c.u32() // the queue's limit
	d.out.DroppedEvents(c.u32())
}

func (d *Decoder) bincodeLinks(c *bincodeCursor) {
	if c.bool() {
		for n := c.length(bincodeLinkMin); n > 0 && c.ok(); n-- {
			d.out.BeginLink()
			d.setLink(d.bincodeContext(c))
			d.bincodeAttributes(c)
			d.out.DroppedAttributes(c.u32())
			d.out.EndLink()
		}
	}
	c.u32() // the queue's limit
	d.out.DroppedLinks(c.u32())
}

func (d *Decoder) bincodeValue(c *bincodeCursor, want int) span.Value {
	variant := c.variant(bincodeValues)
	if variant == bincodeArray {
		return d.bincodeArray(c, want)
	}
	return c.scalar(variant, want)
}

func (d *Decoder) bincodeArray(c *bincodeCursor, want int) span.Value {
	variant := c.variant(bincodeArray)
	size := 8
	if variant == bincodeBool {
		size = 1
	}
	n := c.length(size)
	if (want == 0 || n > span.MaxElements) && variant != bincodeString {
		c.take(n * size)
		return span.SizeValue(n * size)
	}
	d.array.Begin(want)
	for ; n > 0 && c.ok(); n-- {
		d.array.Add(c.scalar(variant, want))
	}
	return d.array.Value()
}

func (c *bincodeCursor) scalar(variant, want int) span.Value {
	switch variant {
	case bincodeBool:
		return span.BoolValue(c.bool())
	case bincodeI64:
		return span.IntValue(int64(c.u64()))
	case bincodeF64:
		return span.DoubleValue(c.u64())
	}
	text, size := c.text(want)
	if want == 0 {
		return span.SizeValue(size)
	}
	return span.TextValue(text, size)
}
