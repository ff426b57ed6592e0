package calls

import (
	"math"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
)

// runtime is what is known of the spans that the sandbox's runtime makes itself, in traces
// that know nothing of ours.
type runtime struct {
	traces recent.Map[trace.TraceID, struct{}]
	// stale are the spans that no request is below any more.
	stale recent.Map[trace.SpanID, struct{}]
	// asked are the requests to the agent, as the runtime's own spans have them.
	asked recent.Map[trace.SpanID, asked]
}

// asked is a request to the agent by the runtime's own span.
type asked struct {
	Period
	request string // "CreateContainer"
}

const (
	// maxStale bounds the runtime's calls remembered because its requests may go on to
	// name them: those of containers, and of their execs.
	maxStale = 4096
	// maxAsked bounds the requests remembered because the agent's spans may name them.
	maxAsked = 4096
)

func newRuntime() runtime {
	return runtime{
		traces: recent.New[trace.TraceID, struct{}](maxTraces),
		stale:  recent.New[trace.SpanID, struct{}](maxStale),
		asked:  recent.New[trace.SpanID, asked](maxAsked),
	}
}

// Learn takes in what a span of the runtime's says that has arrived: the trace is the
// runtime's, and if it is a request to the agent, when that was.
func (c *Calls) Learn(s *Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runtime.traces.Put(s.TraceID, struct{}{})
	if !s.IsThread() && !c.isQuiet(s.method) {
		c.runtime.stale.Put(s.SpanID, struct{}{})
	}
	if request, ok := s.asks(); ok {
		at := s.at
		if s.Failed {
			at.End = math.MaxInt64 // it may have been given up, and gone on in the agent
		}
		c.runtime.asked.Put(s.SpanID, asked{at, request})
	}
}

// Stale tells that no request is below a span of the runtime's.
func (c *Calls) Stale(id trace.SpanID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runtime.stale.Put(id, struct{}{})
}

// IsRuntime reports whether the runtime records its own spans in a trace.
func (c *Calls) IsRuntime(id trace.TraceID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runtime.traces.Has(id)
}

// HasRuntime reports whether there are spans of the runtime's.
func (c *Calls) HasRuntime() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runtime.traces.Len() > 0
}
