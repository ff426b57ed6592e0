package agent

import (
	"math"
	"math/bits"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Encoding is how the agent wrote a payload.
type Encoding uint8

const (
	// Bincode is what agents up to Kata 3.28 send.
	Bincode Encoding = iota + 1
	// JSON is what agents since Kata 3.29 send.
	JSON
)

// String returns the encoding's name.
func (e Encoding) String() string {
	switch e {
	case Bincode:
		return "bincode"
	case JSON:
		return "json"
	}
	return "unknown"
}

// Decoder turns payloads into spans. It keeps its buffers from span to span, so
// one serves a whole connection; it is not safe for concurrent use.
type Decoder struct {
	out      *span.Builder
	counters *Counters
	span     *span.Span // at hand

	// Scratch, each in use for one value at most.
	array span.Array
	key   []byte // a key with its escapes undone
	text  []byte // a text with its escapes undone
	state []byte // a trace state
}

// NewDecoder returns a Decoder that obeys opts, all but opts.MaxFrame.
func NewDecoder(opts Options) *Decoder {
	opts = opts.withDefaults()
	return &Decoder{out: span.NewBuilder(opts.Options, &opts.Counters.Counters), counters: opts.Counters}
}

// Decode decodes one payload into s, replacing what was there. It keeps no part
// of payload. The error is a *PayloadError, after which s is empty and the
// Decoder as good as before.
func (d *Decoder) Decode(payload []byte, s *span.Span) error {
	d.out.Begin(s)
	d.span = s
	encoding := EncodingOf(payload)
	var failed losses.Reason
	var offset int
	if encoding == JSON {
		failed, offset = d.json(payload)
	} else {
		failed, offset = d.bincode(payload)
	}
	if failed == 0 && (s.TraceID == [16]byte{} || s.SpanID == [8]byte{}) {
		failed = losses.NoIdentity
	}
	d.span = nil
	if failed != 0 {
		d.out.Abandon()
		d.counters.Losses.Add(failed, 1)
		return &PayloadError{Encoding: encoding, Reason: failed, Offset: offset}
	}
	d.out.End()
	d.counters.Bytes.Add(uint64(len(payload)))
	return nil
}

// EncodingOf tells the encodings apart. Bincode begins with the trace id, whose
// lowest bytes may by chance be those of a brace and a quote, so JSON must also
// end like JSON; bincode of the agents that send it ends with a zero.
func EncodingOf(payload []byte) Encoding {
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

// ask returns how many bytes of an attribute's value are of use, where want of it are to be
// kept: the beginning of a request is whatever is kept, for the ids in it.
func ask(key []byte, want int) int {
	if want == 0 && string(key) == requestKey {
		return requestHead
	}
	return max(want, 0)
}

func (d *Decoder) put(key []byte, want int, v span.Value) {
	if string(key) == requestKey && v.IsText() {
		if d.out.InSpan() {
			d.out.Process(requestIDs(v.Text))
		}
		if want == 0 {
			d.out.Omit()
			return
		}
	}
	d.out.Put(key, want, v)
}

// Bits of a link's flags in OTLP beyond the W3C trace flags: whether the linked context
// is known to be remote or not, and which.
const (
	flagRemoteKnown = 0x100
	flagRemote      = 0x200
)

// context is a span's or a link's.
type context struct {
	traceID [16]byte
	spanID  [8]byte
	flags   uint8
	remote  bool
	state   []byte // in the Decoder's scratch
}

// putState adds a member to the trace state at hand, unless that is too long already.
func (d *Decoder) putState(key, val []byte) {
	if len(d.state) > d.out.MaxText() {
		return
	}
	if len(d.state) > 0 {
		d.state = append(d.state, ',')
	}
	d.state = append(append(append(d.state, key...), '='), val...)
}

func (d *Decoder) setContext(c context) {
	d.span.TraceID, d.span.SpanID, d.span.TraceFlags = c.traceID, c.spanID, c.flags
	d.out.TraceState(c.state)
}

func (d *Decoder) setLink(c context) {
	flags := uint32(c.flags) | flagRemoteKnown
	if c.remote {
		flags |= flagRemote
	}
	d.out.LinkContext(c.traceID, c.spanID, c.state, flags)
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
