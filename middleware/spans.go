package middleware

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/errtext"
	"github.com/shimtrace/shimtrace/internal/names"
)

// Attributes of calls that the semantic conventions have no name for: shimtrace.exec.id,
// shimtrace.sandbox.id, shimtrace.signal, shimtrace.expected, shimtrace.expected.message.
const (
	ExecIDKey    = attribute.Key(names.Exec)
	SandboxIDKey = attribute.Key(names.Sandbox)
	SignalKey    = attribute.Key(names.Signal)
	// ExpectedKey marks a call that failed as it does in a healthy life, and
	// ExpectedMessageKey is what its answer said, or that there was none.
	ExpectedKey        = attribute.Key(names.Expected)
	ExpectedMessageKey = attribute.Key(names.ExpectedMessage)
)

// spans makes the spans of calls, by the same rules for relay and interceptors.
type spans struct {
	*options
	tracer  trace.Tracer
	direct  directTracer // the tracer, if it is direct; else nil
	methods methods
}

// directTracer is a Tracer that takes what a span begins with as it is. The API hands contexts
// and options around, which are objects: two thirds of what a span costs.
type directTracer interface {
	trace.Tracer
	// StartUnder starts a span under a parent, which may be invalid. Nobody changes attrs.
	StartUnder(parent trace.SpanContext, kind trace.SpanKind, name string, start time.Time, attrs []attribute.KeyValue) trace.Span
}

// directSpan is a span of a directTracer. It keeps nothing of what SetAttributes is given.
type directSpan interface {
	trace.Span
	// EndAt is End at a time.
	EndAt(time.Time)
}

func newSpans(kind trace.SpanKind, opts []Option) *spans {
	o := newOptions(kind, opts)
	o.settings.prepare()
	s := &spans{
		options: o,
		tracer:  o.provider.Tracer(ScopeName),
		methods: methods{cfg: o, settings: &o.settings},
	}
	s.direct, _ = s.tracer.(directTracer)
	return s
}

// begin starts the span of c under ctx, the context that its request came with,
// and returns the context that the request is to go on with.
func (s *spans) begin(ctx context.Context, c *Call) context.Context {
	// A caller in this process is more than its context.
	if s.place(c, trace.SpanContextFromContext(ctx)) {
		ctx = trace.ContextWithRemoteSpanContext(ctx, c.Parent)
	}
	opts := append(make([]trace.SpanStartOption, 0, len(c.method.start)+2), c.method.start...)
	opts = append(opts, trace.WithTimestamp(c.Start))
	if c.link != nil {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: *c.link}))
	}
	ctx, c.span = s.tracer.Start(ctx, c.method.fullName, opts...)
	s.observer.Began(c)
	if c.Quiet() {
		return trace.ContextWithSpanContext(ctx, unsampled(c.span.SpanContext()))
	}
	return ctx
}

// beginDirect is begin where nothing but the span's context goes on, and the tracer is direct.
func (s *spans) beginDirect(caller trace.SpanContext, c *Call) trace.SpanContext {
	s.place(c, caller)
	c.span = s.direct.StartUnder(c.Parent, s.kind, c.method.fullName, c.Start, c.method.attributes)
	if c.link != nil {
		c.span.AddLink(trace.Link{SpanContext: *c.link})
	}
	s.observer.Began(c)
	sc := c.span.SpanContext()
	if c.Quiet() {
		sc = unsampled(sc)
	}
	return sc
}

// place finds out which span the one of c is under, and reports whether that is another one
// than the caller's.
func (s *spans) place(c *Call, caller trace.SpanContext) (another bool) {
	c.spans, c.Caller = s, caller
	parent, link := s.observer.Parent(c)
	c.Parent = caller
	if !parent.IsValid() {
		return false
	}
	if another = !parent.Equal(caller); another {
		c.Parent = parent.WithRemote(true)
	}
	if link.IsSampled() && link.SpanID() != parent.SpanID() {
		kept := link
		c.link = &kept
	}
	return another
}

func unsampled(sc trace.SpanContext) trace.SpanContext {
	return sc.WithTraceFlags(sc.TraceFlags() &^ trace.FlagsSampled)
}

// end ends the span of c, which has been answered at c.End, or drops it when the
// call was quiet.
func (s *spans) end(c *Call) {
	c = s.caughtUp(c)
	c.Expected = c.Code != 0 && s.expects(c)
	s.observer.Answered(c)
	if c.Quiet() && !s.remarkable(c) && c.drop() {
		return
	}
	s.record(c)
}

// expects reports whether the failure of c belongs to a healthy life.
func (s *spans) expects(c *Call) bool { return s.expected != nil && s.expected(c) }

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
	room := rooms.Get().(*[roomForAttributes]attribute.KeyValue)
	attrs := append(room[:0], semconv.RPCResponseStatusCode(c.Code.String()))
	if c.Code != 0 {
		attrs = c.failed(attrs, c.Code.String(), c.Message)
	}
	attrs = c.attributes(attrs)
	c.span.SetAttributes(attrs...)
	if s.direct != nil {
		*room = [roomForAttributes]attribute.KeyValue{}
		rooms.Put(room)
	}
	s.finish(c)
}

// rooms has memory for the attributes that a call's span gets at its end.
var rooms = sync.Pool{New: func() any { return new([roomForAttributes]attribute.KeyValue) }}

const roomForAttributes = 8

// remarkable reports whether a quiet call is worth a span after all.
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
	c.lost, c.Closed = l.why, l.why == errClosed
	c.Expected = c.Closed && s.expects(c)
	c = s.caughtUp(c)
	s.observer.Lost(c)
	timedOut := l.why == errAbandoned && !c.Stream && !c.method.Waits
	if c.Quiet() && !timedOut && c.drop() {
		return
	}
	s.record(c)
}

func (s *spans) recordLost(c *Call) {
	var attrs []attribute.KeyValue
	// The server may be gone as it was told to be: containerd takes no answer for one
	// (core/runtime/v2/shim.go, Shutdown). Or there was an answer that nobody has read.
	if told := c.method.Last && c.Closed; !told && c.lost != errResumed {
		attrs = c.failed(attrs, c.lost.Error(), "no answer: "+strings.ReplaceAll(c.lost.Error(), "_", " "))
	}
	c.span.SetAttributes(c.attributes(attrs)...)
	s.finish(c)
}

// failed notes in the span of c why it failed, and appends to attrs what its attributes say
// of that.
func (c *Call) failed(attrs []attribute.KeyValue, errorType, message string) []attribute.KeyValue {
	if c.Expected {
		return append(attrs, ExpectedKey.Bool(true), ExpectedMessageKey.String(message))
	}
	c.span.SetStatus(codes.Error, message)
	return append(attrs, semconv.ErrorTypeKey.String(errorType))
}

func (s *spans) finish(c *Call) {
	s.observer.Annotate(c, c.span)
	if span, ok := c.span.(directSpan); ok {
		span.EndAt(c.End)
	} else {
		c.span.End(trace.WithTimestamp(c.End))
	}
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
