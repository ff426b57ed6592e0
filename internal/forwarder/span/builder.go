package span

import (
	"bytes"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/errtext"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// Builder makes spans from what a decoder reads. It keeps attributes by list and bounds
// everything. It reuses its buffers and keeps no part of its arguments; it is not safe for
// concurrent use.
//
// The calls for one span come between Begin and End, in any order; those for an event between
// BeginEvent and EndEvent, those for a link between BeginLink and EndLink. Texts are UTF-8, at
// most Options.MaxValue long; size is their length before they were cut.
type Builder struct {
	opts     Options
	keep     keepList
	known    texts
	counters *Counters

	// Of the current span:
	span    *Span
	buf     []byte // becomes Span.rest
	rest    []byte // its new content
	text    []byte // what free returns
	cost    int    // in memory, without spanCost
	reduced uint64
	cut     uint64
	dropped uint64

	own, item     attributes // of the span, and of the current event or link
	list          *attributes
	events, links items
	at            mark // the item's beginning
	linked        bool // the link's ids are valid
	timed         bool // the event has a time
}

// NewBuilder returns a Builder with opts. counters may be nil.
func NewBuilder(opts Options, counters *Counters) *Builder {
	opts = opts.withDefaults()
	if counters == nil {
		counters = new(Counters)
	}
	return &Builder{opts: opts, keep: newKeepList(opts.Keep), counters: counters}
}

// MaxText returns how many bytes of a text are kept at most.
func (b *Builder) MaxText() int { return b.opts.MaxValue }

// maxScratch is the capacity in bytes that a Builder keeps between spans; an agent's spans are
// below 1 KiB with reduced attributes.
const maxScratch = 256 << 10

// Begin begins a span in s. It replaces the content and reuses the memory.
func (b *Builder) Begin(s *Span) {
	b.buf = s.rest[:0]
	*s = Span{}
	b.span, b.rest, b.cost = s, b.rest[:0], 0
	b.reduced, b.cut, b.dropped = 0, 0, 0
	b.own = attributes{field: otlpwire.SpanAttributes}
	b.list = &b.own
	b.events = items{field: otlpwire.SpanEvents, limit: b.opts.MaxEvents, cost: eventCost}
	b.links = items{field: otlpwire.SpanLinks, limit: b.opts.MaxLinks, cost: linkCost}
}

// Name sets the span's name.
func (b *Builder) Name(name []byte, size int) {
	b.countCut(name, size)
	b.span.Name = b.known.get(name)
}

// TraceState sets the span's W3C header. One that is too long is left out: cut, it could mean
// something else.
func (b *Builder) TraceState(header []byte) { b.span.TraceState = b.known.get(b.state(header)) }

func (b *Builder) state(header []byte) []byte {
	if len(header) > b.opts.MaxValue {
		b.cut++
		return nil
	}
	return header
}

// ID returns the text if it can be the id of a container or an exec, else "".
func (b *Builder) ID(text []byte) string {
	if !ValidID(text) {
		return ""
	}
	return b.known.get(text)
}

// Process sets the ids of the span's container and exec if they are valid. An exec with the
// container's id is its first process: the Go runtime writes that, runtime-rs leaves it empty.
func (b *Builder) Process(container, exec []byte) {
	if !ValidID(container) {
		return
	}
	if bytes.Equal(exec, container) {
		exec = nil
	}
	b.span.ContainerID, b.span.ExecID = b.ID(container), b.ID(exec)
}

// Status sets the span's status, once.
func (b *Builder) Status(code tracepb.Status_StatusCode, message []byte, size int) {
	b.countCut(message, size)
	b.span.Failed = code == tracepb.Status_STATUS_CODE_ERROR
	if code == 0 && len(message) == 0 {
		return
	}
	message = b.free(message)
	b.cost += len(message)
	at := len(b.rest)
	if len(message) > 0 {
		b.rest = otlpwire.AppendBytes(b.rest, otlpwire.StatusMessage, message)
	}
	if code != 0 {
		b.rest = otlpwire.AppendVarint(b.rest, otlpwire.StatusCode, uint64(code))
	}
	b.rest = seal(b.rest, at, otlpwire.SpanStatus)
}

// free returns what is kept of free text, which is a status message or an event's name: all of
// the text if the list keeps everything. The result is valid until the next call.
func (b *Builder) free(text []byte) []byte {
	if len(text) == 0 || b.keep.all() {
		return text
	}
	b.text = errtext.Append(b.text[:0], text)
	if !bytes.Equal(b.text, text) {
		b.reduced++
	}
	return b.text
}

func (b *Builder) countCut(text []byte, size int) {
	if len(text) < size {
		b.cut++
	}
}

// End ends the span and counts it.
func (b *Builder) End() {
	b.putDropped(otlpwire.SpanDroppedAttributes, b.own.dropped)
	b.putDropped(otlpwire.SpanDroppedEvents, b.events.dropped)
	b.putDropped(otlpwire.SpanDroppedLinks, b.links.dropped)
	b.span.rest, b.span.cost = append(b.buf, b.rest...), b.cost
	b.span.eventful, b.span.linked = b.events.n > 0, b.links.n > 0
	b.span, b.buf = nil, nil
	if cap(b.rest) > maxScratch {
		b.rest = nil
	}
	c := b.counters
	c.Spans.Add(1)
	c.Reduced.Add(b.reduced)
	c.Cut.Add(b.cut)
	c.Dropped.Add(b.dropped)
}

// Abandon ends an invalid span and leaves it empty.
func (b *Builder) Abandon() {
	*b.span = Span{rest: b.buf}
	b.span, b.buf = nil, nil
}

// putDropped appends a list's dropped count, unless it is 0.
func (b *Builder) putDropped(field protowire.Number, n uint64) {
	if n > 0 {
		b.rest = otlpwire.AppendVarint(b.rest, field, min(n, math.MaxUint32))
	}
}

// attributes is a list of attributes being written.
type attributes struct {
	field   protowire.Number
	n       int
	dropped uint64
}

// wantNone is Want's result for an attribute to drop.
const wantNone = -1

// Want returns how many bytes of an attribute's value to keep: 0 if only the size is kept, less
// than 0 if the attribute is dropped. key is UTF-8; size is its length before it was cut to
// MaxKey.
func (b *Builder) Want(key []byte, size int) int {
	switch {
	case len(key) < size || size > MaxKey:
		return wantNone
	case b.keep.has(key) && !reserved(key):
		return b.opts.MaxValue
	}
	return 0
}

// sizeSuffix ends the key of an attribute that became its size.
const sizeSuffix = ".size"

// Put adds an attribute to the span, or to the current event or link. want is what Want
// returned.
func (b *Builder) Put(key []byte, want int, v Value) {
	kept, suffix := v, ""
	if want <= 0 || v.kind == sizeOnly {
		kept, suffix = IntValue(int64(v.size)), sizeSuffix
	}
	l := b.list
	if want < 0 || l.n == b.opts.MaxAttributes || !b.afford(kept.cost(len(key)+len(suffix))) {
		l.dropped++
		b.dropped++
		return
	}
	l.n++
	if suffix != "" {
		b.reduced++
	} else if v.kind == textValue {
		b.countCut(v.Text, v.size)
	}
	b.rest = appendAttribute(b.rest, l.field, key, suffix, kept)
}

// Omit counts as reduced an attribute that other fields replace.
func (b *Builder) Omit() { b.reduced++ }

// InSpan reports whether attributes currently go to the span itself.
func (b *Builder) InSpan() bool { return b.list == &b.own }

// DroppedAttributes counts attributes that the sender dropped, of the span or of the current
// event or link. DroppedEvents and DroppedLinks do the same for these.
func (b *Builder) DroppedAttributes(n uint32) { b.list.dropped += uint64(n) }
func (b *Builder) DroppedEvents(n uint32)     { b.events.dropped += uint64(n) }
func (b *Builder) DroppedLinks(n uint32)      { b.links.dropped += uint64(n) }

// items is a list of events or links being written.
type items struct {
	field          protowire.Number
	limit, cost, n int
	dropped        uint64
}

// mark is the beginning of an item.
type mark struct{ rest, cost int }

func (b *Builder) begin(field protowire.Number) {
	b.at = mark{len(b.rest), b.cost}
	b.item = attributes{field: field}
	b.list = &b.item
}

// end ends an item: it is added to the span, or dropped if it is invalid or beyond the limits.
func (b *Builder) end(l *items, droppedField protowire.Number, valid bool) {
	b.putDropped(droppedField, b.item.dropped)
	b.list = &b.own
	if !valid || l.n == l.limit || !b.afford(l.cost+len(b.rest)-b.at.rest) {
		b.rest, b.cost = b.rest[:b.at.rest], b.at.cost
		l.dropped++
		b.dropped++
		return
	}
	l.n++
	b.rest = seal(b.rest, b.at.rest, l.field)
}

// BeginEvent begins an event; attributes go to it until EndEvent.
func (b *Builder) BeginEvent() {
	b.begin(otlpwire.EventAttributes)
	b.timed = false
}

// EventName sets an event's name.
func (b *Builder) EventName(name []byte, size int) {
	b.countCut(name, size)
	if name = b.free(name); len(name) > 0 {
		b.rest = otlpwire.AppendBytes(b.rest, otlpwire.EventName, name)
	}
}

// EventTime sets an event's time.
func (b *Builder) EventTime(unixNano uint64) {
	b.rest = otlpwire.AppendFixed64(b.rest, otlpwire.EventTime, unixNano)
	b.timed = true
}

// EndEvent ends the event.
func (b *Builder) EndEvent() {
	if !b.timed {
		b.EventTime(0) // so that MoveEvents finds one
	}
	b.end(&b.events, otlpwire.EventDroppedAttributes, true)
}

// BeginLink begins a link; attributes go to it until EndLink.
func (b *Builder) BeginLink() {
	b.begin(otlpwire.LinkAttributes)
	b.linked = false
}

// LinkContext sets a link's target, with its trace state and OTLP's flags, if any.
func (b *Builder) LinkContext(traceID [16]byte, spanID [8]byte, state []byte, flags uint32) {
	b.linked = traceID != [16]byte{} && spanID != [8]byte{}
	b.rest = otlpwire.AppendBytes(b.rest, otlpwire.LinkTraceID, traceID[:])
	b.rest = otlpwire.AppendBytes(b.rest, otlpwire.LinkSpanID, spanID[:])
	if state = b.state(state); len(state) > 0 {
		b.rest = otlpwire.AppendBytes(b.rest, otlpwire.LinkTraceState, state)
	}
	if flags != 0 {
		b.rest = otlpwire.AppendFixed32(b.rest, otlpwire.LinkFlags, flags)
	}
}

// EndLink ends the link. A link with an invalid target is dropped.
func (b *Builder) EndLink() { b.end(&b.links, otlpwire.LinkDroppedAttributes, b.linked) }

// maxID is the longest id of a container or an exec in bytes.
const maxID = 128

// ValidID reports whether the text can be the id of a container or an exec.
func ValidID(id []byte) bool {
	for _, c := range id {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return 0 < len(id) && len(id) <= maxID
}
