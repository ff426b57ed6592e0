package middleware

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// restore takes over the calls that wait for their answers.
func (c *conn) restore(requests *handover.Stream) {
	kept, missed := c.calls.kept.All()
	for _, k := range kept {
		if k.At >= requests.Position()+uint64(requests.Unfinished()) {
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
		call.timeout = time.Duration(max(k.Deadline-k.Start, 1))
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
	if link := remote(k.Link); link.IsValid() {
		call.link = &link
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: link}))
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
		Caller: keptContext(c.Caller),
	}
	if c.link != nil {
		k.Link = keptContext(*c.link)
	}
	if at, ok := c.deadline(); ok {
		k.Deadline = at.UnixNano()
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
