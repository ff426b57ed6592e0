package middleware

import (
	"context"
	"fmt"
	"net"
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
}

// WithHandover has the connections of a Relay outlive its process, as far as both ends
// are of package net and have descriptors. Default: they end with it.
func WithHandover(h Handover) Option {
	return func(o *options) { o.handover = &h }
}

// Resume goes on with a connection where the process that had the memory before stopped,
// and returns when both ends have ended; it closes all three. The relay must have
// been made with WithHandover.
func (r *Relay) Resume(client, server net.Conn, memory *handover.Memory) error {
	c := &conn{spans: r.spans, client: client, server: server, memory: memory}
	return c.relayMemory()
}

// share relays a connection that can be handed over, and reports whether it could.
func (c *conn) share() bool {
	if c.handover == nil || !plain(c.client) || !plain(c.server) {
		return false
	}
	memory, err := handover.New()
	if err == nil {
		c.memory = memory
		err = c.relayMemory()
	}
	if err != nil {
		c.memory = nil
		c.report(fmt.Errorf("relay: a connection ends with this process: %w", err))
	}
	return err == nil
}

// plain reports whether nothing is between a connection's methods and its descriptor.
func plain(c net.Conn) bool {
	switch c.(type) {
	case *net.UnixConn, *net.TCPConn:
		return true
	}
	return false
}

// relayMemory relays with the connection's memory. On error nothing has been read.
func (c *conn) relayMemory() error {
	defer c.memory.Close()
	requests, err := c.memory.Stream(handover.Requests, c.client, c.server)
	if err != nil {
		return err
	}
	answers, err := c.memory.Stream(handover.Answers, c.server, c.client)
	if err != nil {
		return err
	}
	c.calls.kept = c.memory.Calls()
	ended := func() {}
	c.guard(func() {
		if f := c.handover.Begun(c.client, c.server, c.memory); f != nil {
			ended = f
		}
	})
	defer c.guard(ended)
	c.guard(func() { c.restore(requests) })
	c.relay(requests, answers)
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
		c.ending.request(call.method)
		if call.span != nil {
			c.observer.Began(call)
		}
		c.observer.Forwarded(call)
	}
	if missed > 0 {
		c.report(fmt.Errorf("relay: %d calls were too many to be kept for whoever goes on with the connection; the spans of those that had not ended are lost", missed))
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
