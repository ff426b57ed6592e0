package middleware

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/errtext"
	"github.com/shimtrace/shimtrace/internal/names"
)

// Attributes of calls that the semantic conventions have no name for.
const (
	ExecIDKey    = attribute.Key(names.Exec)
	SandboxIDKey = attribute.Key(names.Sandbox)
	SignalKey    = attribute.Key(names.Signal)
	// ExpectedKey marks a call that failed as it does in a healthy life, and
	// ExpectedMessageKey is what its answer said.
	ExpectedKey        = attribute.Key(names.Expected)
	ExpectedMessageKey = attribute.Key(names.ExpectedMessage)
)

// spans makes the spans of calls, by the same rules for relay and interceptors.
type spans struct {
	*options
	tracer  trace.Tracer
	methods methods
}

func newSpans(kind trace.SpanKind, opts []Option) *spans {
	o := newOptions(kind, opts)
	o.settings.fields = o.propagator.Fields()
	return &spans{
		options: o,
		tracer:  o.provider.Tracer(ScopeName),
		methods: methods{cfg: o, settings: &o.settings},
	}
}

// begin starts the span of c under ctx, the context that its request came with,
// and returns the context that the request is to go on with.
func (s *spans) begin(ctx context.Context, c *Call) context.Context {
	c.spans = s
	c.Caller = trace.SpanContextFromContext(ctx)
	parent, link := s.observer.Parent(c)
	opts := append(make([]trace.SpanStartOption, 0, len(c.method.start)+2), c.method.start...)
	opts = append(opts, trace.WithTimestamp(c.Start))
	if parent.IsValid() {
		// A caller in this process is more than its context.
		if !parent.Equal(c.Caller) {
			ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
		}
		if link.IsSampled() && link.SpanID() != parent.SpanID() {
			c.link = link
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: link}))
		}
	}
	c.Parent = trace.SpanContextFromContext(ctx)
	ctx, c.span = s.tracer.Start(ctx, c.method.fullName, opts...)
	s.observer.Began(c)
	if c.Quiet() {
		sc := c.span.SpanContext()
		return trace.ContextWithSpanContext(ctx, sc.WithTraceFlags(sc.TraceFlags()&^trace.FlagsSampled))
	}
	return ctx
}

// end ends the span of c, which has been answered at c.End, or drops it when the
// call was quiet.
func (s *spans) end(c *Call) {
	c = s.caughtUp(c)
	c.Expected = c.Code != 0 && s.expected != nil && s.expected(c)
	s.observer.Answered(c)
	if c.Quiet() && !s.remarkable(c) && c.drop() {
		return
	}
	s.record(c)
}

// record ends the span of c with what is known of how the call ended.
func (s *spans) record(c *Call) {
	switch {
	case !c.recording():
	case c.lost != nil:
		s.recordLost(c)
	default:
		s.recordAnswered(c)
	}
}

func (s *spans) recordAnswered(c *Call) {
	attrs := make([]attribute.KeyValue, 0, 6)
	attrs = append(attrs, semconv.RPCResponseStatusCode(c.Code.String()))
	switch {
	case c.Expected:
		attrs = append(attrs, ExpectedKey.Bool(true), ExpectedMessageKey.String(c.Message))
	case c.Code != 0:
		attrs = append(attrs, semconv.ErrorTypeKey.String(c.Code.String()))
		c.span.SetStatus(codes.Error, c.Message)
	}
	c.span.SetAttributes(c.attributes(attrs)...)
	s.finish(c)
}

// remarkable tells that a quiet call is worth a span after all.
func (s *spans) remarkable(c *Call) bool {
	slow := c.method.settings.slow
	return c.Code != 0 && !c.over() || slow > 0 && !c.method.Waits && !c.Stream && c.End.Sub(c.Start) > slow
}

// over reports whether the call's error is only how its waiting ends.
func (c *Call) over() bool { return c.method.Over != nil && c.method.Over(c) }

// abandon ends the span of a call that gets no answer any more. Of the quiet ones
// only those that ran into their timeout have failed.
func (s *spans) abandon(l lost) {
	c := l.Call
	c.ended(l.at)
	c.lost = l.why
	c = s.caughtUp(c)
	s.observer.Lost(c)
	timedOut := l.why == errAbandoned && !c.Stream && !c.method.Waits
	if c.Quiet() && !timedOut && c.drop() {
		return
	}
	s.record(c)
}

func (s *spans) recordLost(c *Call) {
	if c.method.Last && c.lost == errClosed || c.lost == errResumed {
		// It is gone as it was told to be: containerd takes no answer for one
		// (core/runtime/v2/shim.go, Shutdown). Or there was an answer that nobody has read.
		c.span.SetAttributes(c.attributes(nil)...)
		s.finish(c)
		return
	}
	c.span.SetAttributes(c.attributes([]attribute.KeyValue{semconv.ErrorTypeKey.String(c.lost.Error())})...)
	c.span.SetStatus(codes.Error, "no answer: "+strings.ReplaceAll(c.lost.Error(), "_", " "))
	s.finish(c)
}

func (s *spans) finish(c *Call) {
	s.observer.Annotate(c, c.span)
	c.span.End(trace.WithTimestamp(c.End))
}

// attributes appends the call's own attributes to attrs.
func (c *Call) attributes(attrs []attribute.KeyValue) []attribute.KeyValue {
	if c.ContainerID != "" {
		attrs = append(attrs, semconv.ContainerID(c.ContainerID))
	}
	if c.ExecID != "" {
		attrs = append(attrs, ExecIDKey.String(c.ExecID))
	}
	if c.SandboxID != "" {
		attrs = append(attrs, SandboxIDKey.String(c.SandboxID))
	}
	if c.Signal != 0 {
		attrs = append(attrs, SignalKey.Int64(int64(c.Signal)))
	}
	if c.PID != 0 {
		attrs = append(attrs, semconv.ProcessPID(int(c.PID)))
	}
	if c.Exited {
		attrs = append(attrs, semconv.ProcessExitCode(int(c.ExitStatus)))
	}
	return attrs
}

// setMessage keeps what of an error message may be said in a span: some shims answer
// with a backtrace, or with what they were asked for.
func (c *Call) setMessage(msg []byte) { c.Message = errtext.Reduce(msg) }
