package middleware

import (
	"context"
	"errors"
	"io"
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
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
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
	gone   []lost
	head   []byte   // the header of a request that is changed
	inject []byte   // the metadata that is put into it
	parts  [][]byte // all of it, in the order in which it is written
	joined []byte   // parts in one, if they are short
}

// forward writes a request with the context of its span, or as it came when that
// cannot be.
func (r *requests) forward(h wire.Header, frame []byte, to writer) error {
	var call *Call
	r.parts, r.gone = r.parts[:0], nil
	if !r.guard(func() { call = r.trace(h, frame[wire.HeaderLen:]) }) {
		call, r.parts = nil, r.parts[:0]
	}
	if err := r.write(frame, to); err != nil {
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
func (r *requests) trace(h wire.Header, envelope []byte) *Call {
	if r.req.Scan(envelope) != nil {
		return nil
	}
	call := &Call{
		Start:  time.Now(),
		Stream: h.Flags&(wire.FlagRemoteClosed|wire.FlagRemoteOpen) != 0,
		method: r.methods.get(r.req.Service, r.req.Method),
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
		r.build(h, envelope)
	}
	r.ending.request(call.method)
	r.gone = r.calls.add(h.Stream, call)
	return call
}

// build prepares the parts of the request with the contexts that r.carry was
// given: none when it was given none or the request would become too long.
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
	r.req.Without(envelope, r.replaced, func(part []byte) {
		r.parts = append(r.parts, part)
		n += len(part)
	})
	if n > wire.MaxPayload {
		r.parts = r.parts[:0]
		return
	}
	h.Length = uint32(n)
	r.head = h.Append(r.head[:0])
	r.parts[0] = r.head
	r.parts = append(r.parts, r.inject)
}

// replaced tells that the request's own metadata under key is to be left out.
func (r *requests) replaced(key []byte) bool { return r.carry.replaces(key, r.fields) }

// write writes the parts of a request, or frame if it has none.
func (r *requests) write(frame []byte, to writer) error {
	if len(r.parts) == 0 {
		_, err := to.Write(frame)
		return err
	}
	n := 0
	for _, part := range r.parts {
		n += len(part)
	}
	if n > copyLimit {
		return to.writeParts(r.parts)
	}
	r.joined = r.joined[:0]
	for _, part := range r.parts {
		r.joined = append(r.joined, part...)
	}
	_, err := to.Write(r.joined)
	return err
}
