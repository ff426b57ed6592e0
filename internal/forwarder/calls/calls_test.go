package calls

import (
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

func context(in, id byte) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{15: in}, SpanID: trace.SpanID{7: id}, TraceFlags: trace.FlagsSampled})
}

// TestCallToldTwice: a call reported twice is remembered once, and stays ended.
func TestCallToldTwice(t *testing.T) {
	c := New(Options{})
	open := Call{Method: "Kill", ContainerID: "a", SpanContext: context(1, 1), Start: time.Unix(0, t0)}
	ended := open
	ended.End = time.Unix(0, t0+100)
	other := ended
	other.SpanContext = context(1, 2)
	for _, told := range []Call{open, ended, open, other} {
		c.Call(told)
	}
	if got := c.byMethod["Kill"].all; len(got) != 2 || got[0].end != t0+100 {
		t.Errorf("a call told twice is remembered as %+v", got)
	}
}

// TestMaxPast: the latest past roots are remembered.
func TestMaxPast(t *testing.T) {
	c := New(Options{})
	for i := range byte(3 * maxPast) {
		c.SetRoot(context(i+1, i+1), time.Unix(0, t0+int64(i)))
	}
	if len(c.windows) != maxPast+1 {
		t.Errorf("%d roots are remembered", len(c.windows))
	}
}

// TestForgotten: an evicted call is still known by its context.
func TestForgotten(t *testing.T) {
	c := New(Options{MaxCalls: 1})
	for id := byte(1); id <= 3; id++ {
		c.Call(Call{Method: "Kill", SpanContext: context(1, id), Start: time.Unix(0, t0), End: time.Unix(0, t0+1)})
	}
	if sc, ok := c.Knows(trace.SpanID{7: 1}); !ok || sc.TraceID() != (trace.TraceID{15: 1}) {
		t.Errorf("known is %v, %t", sc, ok)
	}
	if _, ok := c.Knows(trace.SpanID{7: 9}); ok {
		t.Error("a span of nobody's is known")
	}
}

// TestNoCause: without a root, spans that no call caused have no cause; in an isolated sandbox
// no span has more than a link.
func TestNoCause(t *testing.T) {
	s := AgentSpan(&span.Span{Name: "wait_process", Start: uint64(t0), End: uint64(t0 + 1)})
	s.Came = t0 + 2
	if cause := New(Options{}).Of(&s); cause.Trace.IsValid() || cause.Drop != "" || cause.Parent.IsValid() {
		t.Errorf("the cause is %+v", cause)
	}
	c := New(Options{Isolated: true, Root: context(1, 9)})
	c.Call(Call{Method: "Create", SpanContext: context(1, 1), Start: time.Unix(0, t0), End: time.Unix(0, t0+100)})
	for of, s := range map[string]Span{
		"the agent":   AgentSpan(&span.Span{Name: "create_sandbox", Start: uint64(t0), End: uint64(t0 + 1)}),
		"the runtime": RuntimeSpan(&span.Span{Method: "Create", Start: uint64(t0), End: uint64(t0 + 1)}),
	} {
		s.Came = t0 + 2
		cause := c.Of(&s)
		if linked := cause.Link.Span == (trace.SpanID{7: 1}); cause.Trace.IsValid() || linked != (of == "the runtime") {
			t.Errorf("the cause of a span of %s is %+v", of, cause)
		}
	}
}

func TestQuietRequests(t *testing.T) {
	got := QuietRequests([]string{"State", "Stats", "Pids", "Connect", "Wait"})
	slices.Sort(got)
	if want := []string{"GetMetrics", "StatsContainer"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
