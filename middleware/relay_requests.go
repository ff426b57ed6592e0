package middleware

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// forwardRequests forwards from client to server until the client ends. Requests
// are read whole, since what is put into them changes their length; everything
// else passes as it arrives.
func (c *conn) forwardRequests(rd *handover.Stream) error {
	rq := requests{conn: c}
	if err := finishRequest(rd); err != nil {
		return err
	}
	for {
		if left := rd.Mark().Left; left > 0 {
			if err := copyOn(rd, left); err != nil {
				return err
			}
		}
		head, err := rd.Peek(wire.HeaderLen)
		if err == nil {
			h := wire.ParseHeader(head)
			if !c.understands(h) {
				if err := copyOn(rd, frameLen(h)); err != nil {
					return err
				}
				continue
			}
			if _, err = rd.Peek(int(frameLen(h))); err == nil {
				if err := rq.forward(rd); err != nil {
					return err
				}
				continue
			}
		}
		// The client ended, perhaps within a frame: the server gets what it sent.
		if rest := rd.Buffered(); len(rest) > 0 {
			if err := markWrite(rd.Write(len(rest), rest)); err != nil {
				return err
			}
			err = unexpected(err)
		}
		return err
	}
}

// understands reports whether a frame with this header is a request that is looked at.
func (c *conn) understands(h wire.Header) bool {
	return h.Type == wire.TypeRequest && h.Length <= wire.MaxPayload && !c.panics.off()
}

// frameLen is the length of a frame with its header.
func frameLen(h wire.Header) uint64 { return wire.HeaderLen + uint64(h.Length) }

// copyOn passes n bytes on as they arrive, without holding them.
func copyOn(rd *handover.Stream, n uint64) error {
	for n > 0 {
		chunk, err := rd.Next()
		if chunk = chunk[:min(uint64(len(chunk)), n)]; len(chunk) > 0 {
			if err := markWrite(rd.Write(len(chunk), chunk)); err != nil {
				return err
			}
			n -= uint64(len(chunk))
			rd.Discard(len(chunk), handover.Mark{Left: n})
		}
		if err != nil && n > 0 {
			return unexpected(err)
		}
	}
	return nil
}

// unexpected is the error of a stream that ends within a frame.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// maxBatch bounds the requests that are written at once: the first one waits for what is done
// for the others.
const maxBatch = 16

// requests is what forwarding keeps from one batch of requests to the next.
type requests struct {
	*conn
	req   wire.Request
	carry carrier
	calls []*Call // that are being forwarded
	gone  []lost
	added []byte   // what is put into requests that are changed: metadata, and their headers
	parts [][]byte // all of them, in the order in which they are written
}

// forward writes the requests that have come whole, each with the context of its span, or
// as it came when that cannot be. Where many callers share the connection, they are several
// at once.
func (r *requests) forward(rd *handover.Stream) error {
	r.parts, r.calls, r.gone, r.added = r.parts[:0], r.calls[:0], nil, rd.Free(r.added)
	buffered, n := rd.Buffered(), 0
	for range maxBatch {
		frame := r.whole(buffered[n:])
		if frame == nil {
			break
		}
		r.prepare(frame, rd.Position()+uint64(n))
		n += len(frame)
	}
	if n == 0 {
		return nil // nothing is looked at any more
	}
	if err := markWrite(rd.Write(n, r.parts...)); err != nil {
		return err
	}
	r.lose(r.gone)
	for _, call := range r.calls {
		r.guard(func() { r.observer.Forwarded(call) })
	}
	clear(r.calls)
	rd.Discard(n, handover.Mark{})
	return nil
}

// whole returns the request that b begins with, nil if it is none or not complete.
func (r *requests) whole(b []byte) []byte {
	if len(b) < wire.HeaderLen {
		return nil
	}
	h := wire.ParseHeader(b)
	if !r.understands(h) || uint64(len(b)) < frameLen(h) {
		return nil
	}
	return b[:frameLen(h)]
}

// prepare starts the span of a request, which is at a position of the stream, and adds its
// parts.
func (r *requests) prepare(frame []byte, at uint64) {
	var call *Call
	parts, added := len(r.parts), len(r.added)
	if !r.guard(func() { call = r.trace(wire.ParseHeader(frame), frame[wire.HeaderLen:], at) }) {
		call, r.parts, r.added = nil, r.parts[:parts], r.added[:added]
	}
	if len(r.parts) == parts {
		r.parts = append(r.parts, frame)
	}
	if call != nil {
		r.calls = append(r.calls, call)
	}
}

// trace starts the span of the request in envelope and prepares its parts. It returns nil
// when the envelope cannot be understood.
func (r *requests) trace(h wire.Header, envelope []byte, at uint64) *Call {
	if r.req.Scan(envelope) != nil {
		return nil
	}
	call := &Call{
		Start:  time.Now(),
		Stream: h.Flags&(wire.FlagRemoteClosed|wire.FlagRemoteOpen) != 0,
		method: r.methods.get(r.req.Service, r.req.Method),
		at:     at,
	}
	call.method.readRequest(call, r.req.Payload)
	call.timeout = max(0, time.Duration(r.req.TimeoutNano))
	if r.starts(call) {
		r.carry.reset(&r.req)
		if !r.traceDirect(call) {
			p := call.method.settings.propagator
			ctx := p.Extract(context.Background(), &r.carry)
			ctx = r.begin(ctx, call)
			p.Inject(ctx, &r.carry)
		}
		r.build(h, envelope, call.method.settings.fields)
	}
	r.ending.request(call.method)
	r.gone = append(r.gone, r.conn.calls.add(h.Stream, call)...)
	return call
}

// build prepares the parts of the request with the contexts that r.carry was given. It
// prepares none when r.carry was given no context, or when the request would become too
// long. Otherwise the request's own metadata under the keys in fields is left out.
func (r *requests) build(h wire.Header, envelope []byte, fields []string) {
	if len(r.carry.set) == 0 {
		return
	}
	first, from := len(r.parts), len(r.added)
	for _, e := range r.carry.set {
		r.added = wire.AppendMetadata(r.added, e.key, e.value)
	}
	to := len(r.added)
	n := to - from
	r.parts = append(r.parts, nil)
	replaced := func(key []byte) bool { return r.carry.replaces(key, fields) }
	r.req.Without(envelope, replaced, func(part []byte) {
		r.parts = append(r.parts, part)
		n += len(part)
	})
	if n > wire.MaxPayload {
		r.parts, r.added = r.parts[:first], r.added[:from]
		return
	}
	h.Length = uint32(n)
	r.added = h.Append(r.added)
	r.parts[first] = r.added[to:]
	r.parts = append(r.parts, r.added[from:to])
}
