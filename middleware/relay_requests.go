package middleware

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// copyLimit is the length in bytes up to which a request is put together in one
// buffer; a longer one is written with writev, its payload where it is.
const copyLimit = 4 << 10

// forwardRequests forwards from client to server until the client ends. Requests
// are read whole, since what is put into them changes their length; everything
// else passes as it arrives.
func (c *conn) forwardRequests() error {
	rd := newFrameReader(c.client)
	defer rd.release()
	to := writer{c.server}
	rq := requests{conn: c}
	for {
		head, err := rd.peek(wire.HeaderLen)
		if err == nil {
			h := wire.ParseHeader(head)
			if h.Type != wire.TypeRequest || h.Length > wire.MaxPayload || c.panics.off() {
				if err := rd.copyTo(to, wire.HeaderLen+int64(h.Length)); err != nil {
					return err
				}
				continue
			}
			var frame []byte
			if frame, err = rd.peek(wire.HeaderLen + int(h.Length)); err == nil {
				if err := rq.forward(h, frame, to); err != nil {
					return err
				}
				rd.discard(len(frame))
				continue
			}
		}
		// The client ended, perhaps within a frame: the server gets what it sent.
		if rest := rd.buffered(); len(rest) > 0 {
			if _, err := to.Write(rest); err != nil {
				return err
			}
		}
		return err
	}
}

// requests is what forwarding requests keeps from one to the next.
type requests struct {
	*conn
	req    wire.Request
	carry  carrier
	inject []byte   // the metadata to append
	frame  []byte   // a short request put together
	parts  [][]byte // a long one, in parts
}

func (r *requests) forward(h wire.Header, frame []byte, to writer) error {
	call := r.trace(h, frame[wire.HeaderLen:])
	var err error
	switch {
	case call == nil || len(r.parts) == 0:
		_, err = to.Write(frame)
	case len(r.frame) > 0:
		_, err = to.Write(r.frame)
	default:
		bufs := net.Buffers(r.parts)
		if _, err = bufs.WriteTo(to.Conn); err != nil {
			err = fmt.Errorf("%w: %w", errWrite, err)
		}
	}
	if err == nil && call != nil && r.observer != nil {
		r.guard(func() { r.observer.Forwarded(call) })
	}
	return err
}

// trace starts the span of the request in envelope and prepares the frame to be
// sent in its place, in r.parts and, if short, in r.frame; both are empty when it
// is to go as it came. It returns nil when the request is not traced.
func (r *requests) trace(h wire.Header, envelope []byte) (call *Call) {
	r.frame, r.parts = r.frame[:0], r.parts[:0]
	ok := r.guard(func() {
		if r.req.Scan(envelope) != nil {
			return
		}
		call = &Call{
			Start:  time.Now(),
			Stream: h.Flags&wire.FlagRemoteClosed == 0,
			method: r.methods.get(r.req.Service, r.req.Method),
		}
		call.method.readRequest(call, r.req.Payload)
		if t := time.Duration(r.req.TimeoutNano); t > 0 {
			call.deadline = call.Start.Add(t)
		}
		r.carry = carrier{req: &r.req, set: r.carry.set[:0]}
		ctx := r.propagator.Extract(context.Background(), &r.carry)
		ctx = r.begin(ctx, call)
		r.propagator.Inject(ctx, &r.carry)
		r.build(h, envelope)
		r.calls.add(r.spans, h.Stream, call)
	})
	if !ok {
		r.frame, r.parts = r.frame[:0], r.parts[:0]
		return nil
	}
	return call
}

// build prepares the frame with the contexts that r.carry was given.
func (r *requests) build(h wire.Header, envelope []byte) {
	if len(r.carry.set) == 0 {
		return
	}
	r.inject = r.inject[:0]
	for _, e := range r.carry.set {
		r.inject = wire.AppendMetadata(r.inject, e.key, e.value)
	}
	r.parts = append(r.parts, nil)
	n := len(r.inject)
	r.req.Without(envelope, r.carry.replaces(r.propagator.Fields()), func(part []byte) {
		r.parts = append(r.parts, part)
		n += len(part)
	})
	if n > wire.MaxPayload {
		r.parts = r.parts[:0]
		return
	}
	h.Length = uint32(n)
	r.frame = h.Append(r.frame)
	r.parts = append(r.parts, r.inject)
	if n > copyLimit {
		r.parts[0] = append([]byte(nil), r.frame...)
		r.frame = r.frame[:0]
		return
	}
	for _, part := range r.parts[1:] {
		r.frame = append(r.frame, part...)
	}
}
