package agentwire

import (
	"math"
	"math/bits"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/errtext"
)

// Decoder turns payloads into spans. It keeps its buffers from span to span, so
// one serves a whole connection; it is not safe for concurrent use.
type Decoder struct {
	opts  Options
	keep  keepList
	names names

	// Of the span at hand:
	span    *Span
	rest    []byte // becomes Span.rest
	reduced uint64
	cut     uint64
	dropped uint64
	cost    int // in memory, beside spanCost

	// Scratch, each in use for one value at most.
	array arrayBuilder
	key   []byte // a key with its escapes undone
	text  []byte // a text with its escapes undone
	state []byte // a trace state
}

// NewDecoder returns a Decoder that obeys opts, all but opts.MaxFrame.
func NewDecoder(opts Options) *Decoder {
	opts = opts.withDefaults()
	return &Decoder{opts: opts, keep: newKeepList(opts.Keep)}
}

// maxScratch is the capacity in bytes that a Decoder keeps between spans; an
// agent's spans are below 1 KiB once their attributes are reduced.
const maxScratch = 256 << 10

// Decode decodes one payload into s, replacing what was there. It keeps no part
// of payload. The error is a *PayloadError, after which s is empty and the
// Decoder as good as before.
func (d *Decoder) Decode(payload []byte, s *Span) error {
	buf := s.rest[:0]
	*s = Span{Encoding: encodingOf(payload)}
	d.span, d.rest = s, d.rest[:0]
	d.reset()

	var failed Reason
	var offset int
	if s.Encoding == JSON {
		failed, offset = d.json(payload)
	} else {
		failed, offset = d.bincode(payload)
	}
	if failed == 0 && (s.TraceID == [16]byte{} || s.SpanID == [8]byte{}) {
		failed = NoIdentity
	}
	d.span = nil
	c := d.opts.Counters
	if failed != 0 {
		err := &PayloadError{Encoding: s.Encoding, Reason: failed, Offset: offset}
		*s = Span{rest: buf}
		c.lost[failed].Add(1)
		return err
	}
	s.rest, s.cost = append(buf, d.rest...), d.cost
	if cap(d.rest) > maxScratch {
		d.rest = nil
	}
	c.Spans.Add(1)
	c.Bytes.Add(uint64(len(payload)))
	c.Reduced.Add(d.reduced)
	c.Cut.Add(d.cut)
	c.Dropped.Add(d.dropped)
	return nil
}

func (d *Decoder) reset() { d.reduced, d.cut, d.dropped, d.cost = 0, 0, 0, 0 }

// encodingOf tells the encodings apart. Bincode begins with the trace id, whose
// lowest bytes may by chance be those of a brace and a quote, so JSON must also
// end like JSON; bincode of the agents that send it ends with a zero.
func encodingOf(payload []byte) Encoding {
	n := len(payload)
	if n < 2 || payload[0] != '{' || payload[1] != '"' && payload[1] > ' ' {
		return Bincode
	}
	for n > 0 && payload[n-1] <= ' ' && payload[n-1] != 0 {
		n--
	}
	if payload[n-1] != '}' {
		return Bincode
	}
	return JSON
}

// free returns what is kept of a text that may say anything: a status message, an event's
// name. All of it is if everything is.
func (d *Decoder) free(text []byte) []byte {
	if len(text) == 0 || d.keep.all() {
		return text
	}
	reduced := errtext.Reduce(text)
	if reduced == string(text) {
		return text
	}
	d.reduced++
	return []byte(reduced)
}

// putStatus appends the status message, which is UTF-8, with its code.
func (d *Decoder) putStatus(code tracepb.Status_StatusCode, message []byte) {
	d.span.Failed = code == tracepb.Status_STATUS_CODE_ERROR
	if code == 0 && len(message) == 0 {
		return
	}
	message = d.free(message)
	d.cost += len(message)
	at := len(d.rest)
	if len(message) > 0 {
		d.rest = appendBytes(d.rest, statusMessage, message)
	}
	if code != 0 {
		d.rest = appendVarint(d.rest, statusCode, uint64(code))
	}
	d.rest = seal(d.rest, at, spanStatus)
}

// spanContext is a span's or a link's.
type spanContext struct {
	traceID [16]byte
	spanID  [8]byte
	flags   uint8
	remote  bool
	state   []byte // in the Decoder's scratch
}

// putState adds a member to the trace state at hand. One that grows too long is
// left out: cut anywhere, it would say something else.
func (d *Decoder) putState(key, val []byte) {
	if len(d.state) > d.opts.MaxValue {
		return
	}
	if len(d.state) > 0 {
		d.state = append(d.state, ',')
	}
	d.state = append(append(append(d.state, key...), '='), val...)
}

func (d *Decoder) stateHeader() []byte {
	if len(d.state) > d.opts.MaxValue {
		d.cut++
		return nil
	}
	return d.state
}

func (d *Decoder) setContext(c spanContext) {
	s := d.span
	s.TraceID, s.SpanID, s.TraceFlags = c.traceID, c.spanID, c.flags
	s.TraceState = d.names.get(c.state)
}

func (d *Decoder) putLinkContext(c spanContext) (valid bool) {
	d.rest = appendBytes(d.rest, linkTraceID, c.traceID[:])
	d.rest = appendBytes(d.rest, linkSpanID, c.spanID[:])
	if len(c.state) > 0 {
		d.rest = appendBytes(d.rest, linkTraceState, c.state)
	}
	flags := uint32(c.flags) | flagRemoteKnown
	if c.remote {
		flags |= flagRemote
	}
	d.rest = appendFixed32(d.rest, linkFlags, flags)
	return c.traceID != [16]byte{} && c.spanID != [8]byte{}
}

// unixNano saturates: what reads OTLP takes a time for an int64.
func unixNano(secs uint64, nanos uint32) uint64 {
	hi, lo := bits.Mul64(secs, 1e9)
	lo, carry := bits.Add64(lo, uint64(nanos), 0)
	if hi+carry > 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return lo
}
