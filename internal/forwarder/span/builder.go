package span

import (
	"bytes"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/errtext"
)

// Builder makes spans of what a decoder reads: attributes pass by list, everything has
// its limit. It keeps its buffers from span to span and no part of what it is given; it
// is not safe for concurrent use.
//
// Between Begin and End come the calls for one span, in any order, but those for an
// event or a link between BeginEvent and EndEvent, BeginLink and EndLink. Texts are
// UTF-8, at most Options.MaxValue long; size is how long they were before they were cut.
type Builder struct {
	opts     Options
	keep     keepList
	known    texts
	counters *Counters

	// Of the span at hand:
	span    *Span
	buf     []byte // becomes Span.rest
	rest    []byte // what Span.rest becomes
	cost    int    // in memory, beside spanCost
	reduced uint64
	cut     uint64
	dropped uint64

	own, item     attributes // of the span, and of the event or link at hand
	list          *attributes
	events, links items
	at            mark // where the item begins
	linked        bool // the link leads somewhere
	timed         bool // the event has a time
}

// NewBuilder returns a Builder that obeys opts. counters receives what happens; nil:
// nobody asks.
func NewBuilder(opts Options, counters *Counters) *Builder {
	opts = opts.withDefaults()
	if counters == nil {
		counters = new(Counters)
	}
	return &Builder{opts: opts, keep: newKeepList(opts.Keep), counters: counters}
}

// MaxText is the longest text in bytes of which more is of no use.
func (b *Builder) MaxText() int { return b.opts.MaxValue }

// maxScratch is the capacity in bytes that a Builder keeps between spans; an
// agent's spans are below 1 KiB once their attributes are reduced.
const maxScratch = 256 << 10

// Begin begins a span in s, replacing what was there. Its memory is used again.
func (b *Builder) Begin(s *Span) {
	b.buf = s.rest[:0]
	*s = Span{}
	b.span, b.rest, b.cost = s, b.rest[:0], 0
	b.reduced, b.cut, b.dropped = 0, 0, 0
	b.own = attributes{field: spanAttributes}
	b.list = &b.own
	b.events = items{field: spanEvents, limit: b.opts.MaxEvents, cost: eventCost}
	b.links = items{field: spanLinks, limit: b.opts.MaxLinks, cost: linkCost}
}

// Name sets the span's name.
func (b *Builder) Name(name []byte, size int) {
	b.countCut(name, size)
	b.span.Name = b.known.get(name)
}

// TraceState sets the span's, a W3C header. One that is too long is left out: cut
// anywhere, it would say something else.
func (b *Builder) TraceState(header []byte) { b.span.TraceState = b.known.get(b.state(header)) }

func (b *Builder) state(header []byte) []byte {
	if len(header) > b.opts.MaxValue {
		b.cut++
		return nil
	}
	return header
}

// ID returns the text as a string if it can be a container's id or an exec's, else
// an empty one.
func (b *Builder) ID(text []byte) string {
	if !ValidID(text) {
		return ""
	}
	return b.known.get(text)
}

// Process sets the ids of the container and of the exec that the span is about, as
// far as they can be ids; an exec of the container's own id is its first process: the Go
// runtime writes that, runtime-rs none.
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
		b.rest = appendBytes(b.rest, statusMessage, message)
	}
	if code != 0 {
		b.rest = appendVarint(b.rest, statusCode, uint64(code))
	}
	b.rest = seal(b.rest, at, spanStatus)
}

// free returns what is kept of a text that may say anything: a status message, an event's
// name. All of it is if everything is.
func (b *Builder) free(text []byte) []byte {
	if len(text) == 0 || b.keep.all() {
		return text
	}
	reduced := errtext.Reduce(text)
	if reduced == string(text) {
		return text
	}
	b.reduced++
	return []byte(reduced)
}

func (b *Builder) countCut(text []byte, size int) {
	if len(text) < size {
		b.cut++
	}
}

// End ends the span and counts it.
func (b *Builder) End() {
	b.putDropped(spanDroppedAttributes, b.own.dropped)
	b.putDropped(spanDroppedEvents, b.events.dropped)
	b.putDropped(spanDroppedLinks, b.links.dropped)
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

// Abandon ends a span that is none, and leaves it empty.
func (b *Builder) Abandon() {
	*b.span = Span{rest: b.buf}
	b.span, b.buf = nil, nil
}

// putDropped appends a count of what a list lost.
func (b *Builder) putDropped(field protowire.Number, n uint64) {
	if n > 0 {
		b.rest = appendVarint(b.rest, field, min(n, math.MaxUint32))
	}
}

// attributes is one list of attributes being written.
type attributes struct {
	field   protowire.Number
	n       int
	dropped uint64
}

// wantNone is what is wanted of an attribute that is dropped.
const wantNone = -1

// Want returns what is to become of an attribute, by its key, which is UTF-8, and the size
// that the key had before it was cut to MaxKey: how many bytes of its value are of use, 0
// where the size is. It is below 0 for one that is dropped.
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

// Put adds an attribute to the span, or to the event or link at hand. want is what Want
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

// Omit counts an attribute that something else stands for.
func (b *Builder) Omit() { b.reduced++ }

// InSpan reports whether attributes are those of the span itself, at the moment.
func (b *Builder) InSpan() bool { return b.list == &b.own }

// DroppedAttributes counts those that were lost before: of the span, or of the event or
// link at hand. DroppedEvents and DroppedLinks do the same.
func (b *Builder) DroppedAttributes(n uint32) { b.list.dropped += uint64(n) }
func (b *Builder) DroppedEvents(n uint32)     { b.events.dropped += uint64(n) }
func (b *Builder) DroppedLinks(n uint32)      { b.links.dropped += uint64(n) }

// items is a list of events or links being written.
type items struct {
	field          protowire.Number
	limit, cost, n int
	dropped        uint64
}

// mark is where an item begins.
type mark struct{ rest, cost int }

func (b *Builder) begin(field protowire.Number) {
	b.at = mark{len(b.rest), b.cost}
	b.item = attributes{field: field}
	b.list = &b.item
}

// end ends an item: it becomes part of the span, or is dropped where it cannot be one
// or there are enough.
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

// BeginEvent begins an event; attributes are its own until EndEvent.
func (b *Builder) BeginEvent() {
	b.begin(eventAttributes)
	b.timed = false
}

// EventName sets an event's name.
func (b *Builder) EventName(name []byte, size int) {
	b.countCut(name, size)
	if name = b.free(name); len(name) > 0 {
		b.rest = appendBytes(b.rest, eventName, name)
	}
}

// EventTime sets an event's time.
func (b *Builder) EventTime(unixNano uint64) {
	b.rest = appendFixed64(b.rest, eventTime, unixNano)
	b.timed = true
}

// EndEvent ends it.
func (b *Builder) EndEvent() {
	if !b.timed {
		b.EventTime(0) // so that there is one to be changed
	}
	b.end(&b.events, eventDroppedAttributes, true)
}

// BeginLink begins a link; attributes are its own until EndLink.
func (b *Builder) BeginLink() {
	b.begin(linkAttributes)
	b.linked = false
}

// LinkContext sets where a link leads, with a trace state and OTLP's flags, if any.
func (b *Builder) LinkContext(traceID [16]byte, spanID [8]byte, state []byte, flags uint32) {
	b.linked = traceID != [16]byte{} && spanID != [8]byte{}
	b.rest = appendBytes(b.rest, linkTraceID, traceID[:])
	b.rest = appendBytes(b.rest, linkSpanID, spanID[:])
	if state = b.state(state); len(state) > 0 {
		b.rest = appendBytes(b.rest, linkTraceState, state)
	}
	if flags != 0 {
		b.rest = appendFixed32(b.rest, linkFlags, flags)
	}
}

// EndLink ends it. One that leads nowhere is dropped.
func (b *Builder) EndLink() { b.end(&b.links, linkDroppedAttributes, b.linked) }

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
