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
			if h.Type != wire.TypeRequest || h.Length > wire.MaxPayload || c.panics.off() {
				if err := copyOn(rd, frameLen(h)); err != nil {
					return err
				}
				continue
			}
			var frame []byte
			if frame, err = rd.Peek(int(frameLen(h))); err == nil {
				if err := rq.forward(h, frame, rd); err != nil {
					return err
				}
				rd.Discard(len(frame), handover.Mark{})
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

// requests is what forwarding requests keeps from one to the next.
type requests struct {
	*conn
	req   wire.Request
	carry carrier
	gone  []lost
	added []byte   // what is put into a request that is changed: metadata, and its header
	parts [][]byte // all of it, in the order in which it is written
}

// forward writes a request with the context of its span, or as it came when that
// cannot be.
func (r *requests) forward(h wire.Header, frame []byte, rd *handover.Stream) error {
	var call *Call
	r.parts, r.gone = r.parts[:0], nil
	if !r.guard(func() { call = r.trace(h, frame[wire.HeaderLen:], rd) }) {
		call, r.parts = nil, r.parts[:0]
	}
	if len(r.parts) == 0 {
		r.parts = append(r.parts, frame)
	}
	if err := markWrite(rd.Write(len(frame), r.parts...)); err != nil {
		return err
	}
	r.lose(r.gone)
	if call != nil {
		r.guard(func() { r.observer.Forwarded(call) })
	}
	return nil
}

// trace starts the span of the request in envelope and prepares its parts. It
// returns nil when there is nothing to be understood.
func (r *requests) trace(h wire.Header, envelope []byte, rd *handover.Stream) *Call {
	if r.req.Scan(envelope) != nil {
		return nil
	}
	call := &Call{
		Start:  time.Now(),
		Stream: h.Flags&(wire.FlagRemoteClosed|wire.FlagRemoteOpen) != 0,
		method: r.methods.get(r.req.Service, r.req.Method),
		at:     rd.Position(),
	}
	call.method.readRequest(call, r.req.Payload)
	if t := time.Duration(r.req.TimeoutNano); t > 0 {
		call.deadline = call.Start.Add(t)
	}
	if r.starts(call) {
		r.carry = carrier{req: &r.req, set: r.carry.set[:0]}
		ctx := r.propagator.Extract(context.Background(), &r.carry)
		ctx = r.begin(ctx, call)
		r.propagator.Inject(ctx, &r.carry)
		r.build(h, envelope, rd)
	}
	r.ending.request(call.method)
	r.gone = r.calls.add(h.Stream, call)
	return call
}

// build prepares the parts of the request with the contexts that r.carry was
// given: none when it was given none or the request would become too long.
func (r *requests) build(h wire.Header, envelope []byte, rd *handover.Stream) {
	if len(r.carry.set) == 0 {
		return
	}
	r.added = rd.Free(r.added)
	for _, e := range r.carry.set {
		r.added = wire.AppendMetadata(r.added, e.key, e.value)
	}
	n := len(r.added)
	r.parts = append(r.parts, nil)
	r.req.Without(envelope, r.replaced, func(part []byte) {
		r.parts = append(r.parts, part)
		n += len(part)
	})
	if n > wire.MaxPayload {
		r.parts = r.parts[:0]
		return
	}
	added := len(r.added)
	h.Length = uint32(n)
	r.added = h.Append(r.added)
	r.parts[0] = r.added[added:]
	r.parts = append(r.parts, r.added[:added])
}

// replaced tells that the request's own metadata under key is to be left out.
func (r *requests) replaced(key []byte) bool { return r.carry.replaces(key, r.fields) }
