package middleware

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// Handover says who can go on with the connections of a Relay when its process has ended:
// another process that has the same descriptors and the memory of the connection, and
// calls Relay.Resume. It is for the shim; the memory's type is internal.
type Handover struct {
	// Begun is told of each connection before its first byte is read, and may return who
	// is told of its end, when both ends have been shut down. Neither must block. The
	// descriptors and the memory are the relay's, to be copied in between.
	Begun func(client, server net.Conn, memory *handover.Memory) (ended func())
	// WithIDs returns a context in which the next span has the ids. Calls that were
	// waiting for their answers end with the ids that their requests went on with.
	WithIDs func(context.Context, trace.TraceID, trace.SpanID) context.Context
	// Lost is told how many calls of a resumed connection wait for their answers that are
	// not known any more, so that they have no span: what is kept is bounded. nil: nobody.
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

// Leave has every connection stop where it is, for another process to go on with, and
// returns when they have: nothing of them has been closed, shut down or told of as ended,
// and Connect and Resume have returned. A connection that comes afterwards is not read.
// It fails, and nothing has changed, if there is a connection that cannot be handed over.
func (r *Relay) Leave() error { return r.conns.leave() }

// conns are the connections of a relay.
type conns struct {
	mu   sync.Mutex
	open map[*conn]struct{}
	left bool
	gone sync.Cond
}

// add adds a connection, whose streams are stopped if they are not to be read any more.
func (cs *conns) add(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = make(map[*conn]struct{})
		cs.gone.L = &cs.mu
	}
	cs.open[c] = struct{}{}
	if cs.left {
		c.stop()
	}
}

func (cs *conns) remove(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.open, c)
	cs.gone.Broadcast()
}

func (cs *conns) leave() error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		if c.memory == nil {
			return errors.New("relay: there is a connection that ends with this process")
		}
	}
	cs.left = true
	for c := range cs.open {
		c.stop()
	}
	for len(cs.open) > 0 {
		cs.gone.Wait()
	}
	return nil
}

func (c *conn) stop() {
	for _, s := range c.streams {
		s.Stop()
	}
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
// there is none, and what has been read of it.
func plain(c net.Conn) (conn net.Conn, ahead []byte) {
	switch c := c.(type) {
	case *net.UnixConn, *net.TCPConn:
		return c, nil
	case *handover.Ahead:
		return c.UnixConn, c.Bytes
	}
	return nil, nil
}

// relayMemory relays with the connection's memory, of which some bytes may have been read
// that are not in it. On error nothing else has.
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
	ended := func() {}
	c.guard(func() {
		if f := c.handover.Begun(c.client, c.server, c.memory); f != nil {
			ended = f
		}
	})
	c.guard(func() { c.restore(requests) })
	c.streams = []*handover.Stream{requests, answers}
	all.add(c)
	defer all.remove(c)
	if c.relay(requests, answers) {
		c.guard(ended)
		_ = c.memory.Close()
	}
	return nil
}

// restore takes over the calls that wait for their answers.
func (c *conn) restore(requests *handover.Stream) {
	kept, missed := c.calls.kept.All()
	for _, k := range kept {
		if k.At == requests.Position() && requests.Unfinished() == 0 {
			c.calls.kept.Remove(k.Stream) // its request has not gone yet: it begins anew
			continue
		}
		call := c.resumed(k)
		c.calls.restore(k.Stream, call)
		c.ending.last.Store(call.method)
		if call.span != nil {
			c.observer.Began(call)
		}
		c.observer.Forwarded(call)
	}
	if missed > 0 && c.handover.Lost != nil {
		c.handover.Lost(int(missed))
	}
}

// resumed returns a call that another process began.
func (c *conn) resumed(k handover.Call) *Call {
	call := &Call{
		Service: k.Service, Method: k.Method,
		ContainerID: k.ContainerID, ExecID: k.ExecID, SandboxID: k.SandboxID, Bundle: k.Bundle, Signal: k.Signal,
		Stream: k.Streaming,
		Start:  time.Unix(0, k.Start),
		method: c.methods.get([]byte(k.Service), []byte(k.Method)),
		spans:  c.spans,
		turns:  c.turns(),
		at:     k.At,
	}
	if k.Deadline != 0 {
		call.deadline = time.Unix(0, k.Deadline)
	}
	if remote(k.Span).IsValid() {
		c.resumeSpan(call, k)
	} else if isOn(call.turns) {
		call.turns-- // it began before that
	}
	return call
}

// resumeSpan gives a call the span with whose context its request has gone.
func (c *conn) resumeSpan(call *Call, k handover.Call) {
	call.Caller = remote(k.Caller)
	call.link = remote(k.Link)
	parent := k.Span
	parent.SpanID = k.ParentID
	call.Parent = remote(parent)
	ctx := context.Background()
	if call.Parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, call.Parent)
	}
	if !k.Span.Sampled || c.handover.WithIDs == nil {
		call.span = trace.SpanFromContext(trace.ContextWithSpanContext(ctx, remote(k.Span)))
		return
	}
	opts := append(call.method.start[:len(call.method.start):len(call.method.start)], trace.WithTimestamp(call.Start))
	if call.link.IsValid() {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: call.link}))
	}
	_, call.span = c.tracer.Start(c.handover.WithIDs(ctx, k.Span.TraceID, k.Span.SpanID), call.method.fullName, opts...)
}

// kept is what is kept of a call for another process.
func (c *Call) kept(stream uint32) handover.Call {
	k := handover.Call{
		Stream: stream, At: c.at, Start: c.Start.UnixNano(), Streaming: c.Stream,
		Service: c.Service, Method: c.Method,
		ContainerID: c.ContainerID, ExecID: c.ExecID, SandboxID: c.SandboxID, Bundle: c.Bundle, Signal: c.Signal,
		Span: keptContext(c.SpanContext()), ParentID: c.Parent.SpanID(),
		Caller: keptContext(c.Caller), Link: keptContext(c.link),
	}
	if !c.deadline.IsZero() {
		k.Deadline = c.deadline.UnixNano()
	}
	return k
}

func keptContext(sc trace.SpanContext) handover.SpanContext {
	return handover.SpanContext{TraceID: sc.TraceID(), SpanID: sc.SpanID(), Sampled: sc.IsSampled()}
}

func remote(k handover.SpanContext) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: k.TraceID, SpanID: k.SpanID, TraceFlags: trace.TraceFlags(0).WithSampled(k.Sampled), Remote: true,
	})
}

// finishRequest writes the rest of what another process has begun to forward.
func finishRequest(rd *handover.Stream) error {
	n := rd.Unfinished()
	if n == 0 {
		return nil
	}
	left := rd.Mark().Left
	if b := rd.Buffered(); left == 0 && len(b) >= wire.HeaderLen {
		left = frameLen(wire.ParseHeader(b))
	}
	if err := markWrite(rd.Finish()); err != nil {
		return err
	}
	rd.Discard(n, handover.Mark{Left: left - min(left, uint64(n))})
	return nil
}

// finishAnswers is finishRequest for the other direction: the calls that are answered
// end now.
func (c *conn) finishAnswers(rd *handover.Stream, answers *answerReader) error {
	n := rd.Unfinished()
	if n == 0 {
		return nil
	}
	if err := markWrite(rd.Finish()); err != nil {
		return err
	}
	c.forwarded(rd, rd.Buffered()[:n], answers, time.Now())
	return nil
}
