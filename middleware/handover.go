package middleware

import (
	"context"
	"errors"
	"fmt"
	"net"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/handover"
)

// Handover lets another process go on with the connections of a Relay when the Relay's
// process has ended. That process has the same descriptors and the memories of the
// connections, and calls Relay.Resume. Handover is for the shim; the memory's type is
// internal.
type Handover struct {
	// Begun is told of each connection before its first byte is read. It may return a
	// function, which is called at the connection's end, when both ends have been shut
	// down. Neither may block. The descriptors and the memory are the relay's; they may be
	// copied between the two calls.
	Begun func(client, server net.Conn, memory *handover.Memory) (ended func())
	// WithIDs returns a context in which the next span has the ids. Calls that were
	// waiting for their answers end with the ids that their requests went on with.
	WithIDs func(context.Context, trace.TraceID, trace.SpanID) context.Context
	// Lost is told how many calls of a resumed connection wait for their answers, but are
	// not known any more and so have no span: what is kept of calls is bounded. nil: nobody
	// is told.
	Lost func(calls int)
}

// WithHandover has the connections of a Relay outlive its process, as far as both ends
// are of package net and have descriptors. Default: they end with it.
func WithHandover(h Handover) Option {
	return func(o *options) { o.handover = &h }
}

// Resume goes on with a connection where the process that had the memory before stopped,
// and returns when both ends have ended; it closes all three, unless Leave was called.
// On error nothing has been read, and the connections are open. The relay must have
// been made with WithHandover.
func (r *Relay) Resume(client, server net.Conn, memory *handover.Memory) error {
	c := &conn{spans: r.spans, client: client, server: server, memory: memory}
	return c.relayMemory(&r.conns)
}

// share relays a connection that can be handed over, and reports whether it could.
func (c *conn) share(all *conns) bool {
	client, saidByClient := plain(c.client)
	server, saidByServer := plain(c.server)
	if c.handover == nil || client == nil || server == nil {
		return false
	}
	memory, err := handover.New()
	if err == nil {
		shared := &conn{spans: c.spans, client: client, server: server, memory: memory, raw: c.raw}
		err = shared.relayMemory(all, saidByClient, saidByServer)
	}
	if err != nil {
		c.report(fmt.Errorf("relay: a connection ends with this process: %w", err))
	}
	return err == nil
}

// plain returns a connection with nothing between its methods and its descriptor, nil if
// there is none, and what has been read from it.
func plain(c net.Conn) (conn net.Conn, ahead []byte) {
	switch c := c.(type) {
	case *net.UnixConn, *net.TCPConn:
		return c, nil
	case *handover.Ahead:
		return c.UnixConn, c.Bytes
	}
	return nil, nil
}

// relayMemory relays with the connection's memory. ahead is what has been read from the
// client and from the server and is not in the memory yet. On error nothing else has been
// read.
func (c *conn) relayMemory(all *conns, ahead ...[]byte) error {
	requests, err := c.memory.Stream(handover.Requests, c.client, c.server)
	if err != nil {
		return errors.Join(err, c.memory.Close())
	}
	answers, err := c.memory.Stream(handover.Answers, c.server, c.client)
	if err != nil {
		return errors.Join(err, c.memory.Close())
	}
	if len(ahead) > 0 {
		requests.Preload(ahead[0])
		answers.Preload(ahead[1])
		answers.Discard(0, handover.Mark{Left: c.raw})
	}
	c.calls.kept = c.memory.Calls()
	c.ending.goOn(c.memory.Requests())
	c.streams = []*handover.Stream{requests, answers}
	// Before it is told: who leaves then waits for it, and goes on when it has stopped.
	all.add(c)
	defer all.remove(c)
	ended := func() {}
	c.guard(func() {
		if f := c.handover.Begun(c.client, c.server, c.memory); f != nil {
			ended = f
		}
	})
	c.guard(func() { c.restore(requests) })
	if c.relay(requests, answers) {
		c.guard(ended)
		_ = c.memory.Close()
	}
	return nil
}
