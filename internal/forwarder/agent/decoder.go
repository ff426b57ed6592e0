package agent

import (
	"math"
	"math/bits"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// Encoding is the encoding of a payload.
type Encoding uint8

const (
	// Bincode is sent by agents up to Kata 3.28.
	Bincode Encoding = iota + 1
	// JSON is sent by agents since Kata 3.29.
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

// Decoder turns payloads into spans. It reuses its buffers, so one serves a whole connection.
// It is not safe for concurrent use.
type Decoder struct {
	out      *span.Builder
	counters *Counters
	span     *span.Span // being decoded

	// Scratch, each used for one value at a time.
	array span.Array
	key   []byte // a key, unescaped
	text  []byte // a text, unescaped
	state []byte // a trace state
}

// NewDecoder returns a Decoder with opts; it does not use opts.MaxFrame.
func NewDecoder(opts Options) *Decoder {
	opts = opts.withDefaults()
	return &Decoder{out: span.NewBuilder(opts.Options, &opts.Counters.Counters), counters: opts.Counters}
}

// Decode decodes one payload into s and replaces its content. It keeps no part of payload. The
// error is a *payloadError: s is then empty, and the Decoder can be used further.
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
		return &payloadError{Encoding: encoding, Reason: failed, Offset: offset}
	}
	d.out.End()
	d.counters.Bytes.Add(uint64(len(payload)))
	return nil
}

// EncodingOf returns a payload's encoding. Bincode begins with the trace id, whose lowest bytes
// may happen to be a brace and a quote, so JSON must also end with a brace; the agents' bincode
// ends with a zero.
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

// ask returns how many bytes of an attribute's value to read if want bytes are to be kept. The
// beginning of a request is always read, for the ids in it.
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

// context is the context of a span or a link.
type context struct {
	traceID [16]byte
	spanID  [8]byte
	flags   uint8
	remote  bool
	state   []byte // in the Decoder's scratch
}

// putState adds a member to the trace state, unless that is too long already.
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
	flags := uint32(c.flags) | otlpwire.FlagHasIsRemote
	if c.remote {
		flags |= otlpwire.FlagIsRemote
	}
	d.out.LinkContext(c.traceID, c.spanID, c.state, flags)
}

// unixNano saturates, since readers of OTLP use an int64 for times.
func unixNano(secs uint64, nanos uint32) uint64 {
	hi, lo := bits.Mul64(secs, 1e9)
	lo, carry := bits.Add64(lo, uint64(nanos), 0)
	if hi+carry > 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return lo
}
