package endpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"unicode/utf8"

	"github.com/apache/thrift/lib/go/thrift"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// decoder turns request bodies into spans. It reuses its buffers and is not safe for
// concurrent use.
type decoder struct {
	opts    Options
	reader  *reader
	builder *span.Builder

	// Scratch for the current span:
	scratch span.Span
	refs    []reference

	lost     map[losses.Reason]int // of the current body
	exporter uint64
}

// NewDecoder returns a decoder that uses opts.Span, opts.MaxSpans and opts.Counters.
func NewDecoder(opts Options) *decoder {
	opts = opts.withDefaults()
	return &decoder{opts: opts, reader: newReader(), builder: span.NewBuilder(opts.Span, &opts.Counters.Attributes), lost: make(map[losses.Reason]int)}
}

// SetSpan replaces opts.Span.
func (d *decoder) SetSpan(o span.Options) {
	d.builder = span.NewBuilder(o, &d.opts.Counters.Attributes)
}

// bodyError says that a body is malformed. It never quotes the body, which may hold
// secrets.
type bodyError struct {
	// Offset is the byte at which decoding stopped.
	Offset int
	// Span is the index of the malformed span; -1 outside spans.
	Span int
	Err  error
}

func (e *bodyError) Error() string {
	where := ""
	if e.Span >= 0 {
		where = fmt.Sprintf(" in span %d", e.Span)
	}
	return fmt.Sprintf("decode runtime spans: malformed at byte %d%s: %v", e.Offset, where, e.Err)
}

func (e *bodyError) Unwrap() error { return e.Err }

// maxService is the longest service name in bytes; longer ones are cut.
const maxService = 256

// Decode decodes one body, a Batch of jaeger.thrift in Thrift's binary protocol. It
// keeps no part of body. Unwanted spans, the exporter's own among them, are left out
// and counted. The error is a *bodyError and costs the whole body.
func (d *decoder) Decode(body []byte) (service string, spans []span.Span, err error) {
	r := d.reader
	r.begin(body)
	clear(d.lost)
	d.exporter = 0
	at := -1
	var hasProcess, hasSpans bool
	for {
		id, is, more := r.field()
		if !more {
			break
		}
		switch {
		case id == 1 && is == thrift.STRUCT:
			service, hasProcess = process(r), true
		case id == 2 && is == thrift.LIST && !hasSpans:
			spans, at = d.spans(r)
			hasSpans = true
		default:
			r.skip(is)
		}
	}
	switch {
	case r.err != nil:
	case !hasProcess || !hasSpans:
		r.fail(errors.New("the batch has no process or no spans"))
	case r.left.Len() > 0:
		r.fail(errors.New("there is more after the batch"))
	}
	c := d.opts.Counters
	if r.err != nil {
		c.Losses.Add(losses.MalformedPost, 1)
		return "", nil, &bodyError{Offset: r.at, Span: at, Err: r.err}
	}
	d.count(len(body), len(spans))
	return service, spans, nil
}

// count counts what became of a body.
func (d *decoder) count(bytes, spans int) {
	c := d.opts.Counters
	for reason, n := range d.lost {
		c.Losses.Add(reason, n)
	}
	c.Exporter.Add(d.exporter)
	c.Bodies.Add(1)
	c.Bytes.Add(uint64(bytes))
	c.Spans.Add(uint64(spans))
}

// spans reads the batch's spans. at is the index of the one that could not be read, or
// -1.
func (d *decoder) spans(r *reader) (spans []span.Span, at int) {
	n := r.list(thrift.STRUCT)
	for at = range n {
		reason, exporter := d.span(r, &d.scratch)
		if r.err != nil {
			return nil, at
		}
		if exporter {
			d.exporter++
			continue
		}
		if reason == 0 && len(spans) == d.opts.MaxSpans {
			reason = losses.TooMany
		}
		if reason != 0 {
			d.lost[reason]++
			continue
		}
		if spans == nil { // a list cannot hold more spans than fit into the rest of the body
			spans = make([]span.Span, 0, min(n-at, d.opts.MaxSpans, 1+r.left.Len()/minSpan))
		}
		spans = append(spans, d.scratch)
	}
	return spans, -1
}

// minSpan is the smallest size of a span in bytes: eight required fields, an empty
// name, and the end.
const minSpan = 6*(3+8) + (3 + 4) + (3 + 4) + 1

// process reads a Process and returns its service name; the host knows the rest better.
func process(r *reader) string {
	var name []byte
	for {
		id, is, more := r.field()
		switch {
		case !more:
			if len(name) > maxService {
				name = name[:maxService]
			}
			if !utf8.Valid(name) {
				return "" // no service name with a meaning is invalid
			}
			return string(name)
		case id == 1 && is == thrift.STRING:
			name = r.text()
		case id == 2 && is == thrift.LIST:
			for n := r.list(thrift.STRUCT); n > 0 && r.err == nil; n-- {
				readTag(r) // skip would copy its texts
			}
		default:
			r.skip(is)
		}
	}
}

// required has the bits of a span's required fields.
const required = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<7 | 1<<8 | 1<<9

// span reads a Span. It returns why it is lost, if so, and whether it is the exporter's
// own. r.err says whether it could be read.
func (d *decoder) span(r *reader, s *span.Span) (lost losses.Reason, exporter bool) {
	*s = span.Span{} // its memory belongs to the caller by now
	d.builder.Begin(s)
	d.refs = d.refs[:0]
	s.Kind = tracepb.Span_SPAN_KIND_INTERNAL
	var t traits
	var start, duration int64
	seen := 0
	for {
		id, is, more := r.field()
		if !more {
			break
		}
		switch {
		case id == 1 && is == thrift.I64:
			putID(s.TraceID[8:], r.i64())
		case id == 2 && is == thrift.I64:
			putID(s.TraceID[:8], r.i64())
		case id == 3 && is == thrift.I64:
			putID(s.SpanID[:], r.i64())
		case id == 4 && is == thrift.I64:
			putID(s.ParentID[:], r.i64())
		case id == 5 && is == thrift.STRING:
			t.name = r.text()
		case id == 6 && is == thrift.LIST:
			d.references(r)
		case id == 7 && is == thrift.I32:
			s.TraceFlags = uint8(r.i32() & 1) // the sampled bit; the others are Jaeger's
		case id == 8 && is == thrift.I64:
			start = r.i64()
		case id == 9 && is == thrift.I64:
			duration = r.i64()
		case id == 10 && is == thrift.LIST:
			for n := r.list(thrift.STRUCT); n > 0 && r.err == nil; n-- {
				d.attribute(readTag(r), &t)
			}
		case id == 11 && is == thrift.LIST:
			for n := r.list(thrift.STRUCT); n > 0 && r.err == nil; n-- {
				d.event(r)
			}
		default:
			r.skip(is)
			continue
		}
		seen |= 1 << id
	}
	if r.err == nil && seen&required != required {
		r.fail(errors.New("the span lacks a required field"))
	}
	switch {
	case r.err != nil:
		return 0, false
	case t.exporter():
		return 0, true
	case s.TraceID == [16]byte{} || s.SpanID == [8]byte{}:
		return losses.NoIdentity, false
	}
	s.Start = unixNano(start)
	s.End = unixNano(saturated(start, max(duration, 0)))
	d.refer(s)
	d.finish(s, &t)
	if s.Cost() > maxSize {
		return losses.TooLarge, false
	}
	return 0, false
}

// maxSize leaves room for what the link adds to a span.
const maxSize = span.MaxSize - 1024

func putID(id []byte, v int64) { binary.BigEndian.PutUint64(id, uint64(v)) }

// saturated returns a+b, at most MaxInt64. b is not negative.
func saturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// unixNano converts microseconds to nanoseconds, within the range that OTLP's readers
// accept.
func unixNano(micros int64) uint64 {
	hi, lo := bits.Mul64(uint64(max(micros, 0)), 1000)
	if hi > 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return lo
}
