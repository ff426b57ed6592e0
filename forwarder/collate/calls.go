package collate

import (
	"math"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Call is a call of the shim.
type Call struct {
	Method string // "Create"
	// ContainerID is the sandbox's id in calls of the sandbox service.
	ContainerID, ExecID string
	// Start is when the request was read. End is when it was answered or given up,
	// zero while it is open.
	Start, End time.Time
	// Failed: it was answered with an error, or not at all.
	Failed bool
	// SpanContext is that of the call's span.
	SpanContext trace.SpanContext
}

// call is a Call as it is remembered.
type call struct {
	Call
	start, end int64 // Unix nanoseconds; end is math.MaxInt64 while open
}

func (c *call) holds(at int64) bool { return c.start <= at && at <= c.end }

// calls remembers the sandbox's calls and which traces are its own. Its lock is
// not the Collator's, so that telling of a call never waits for spans.
type calls struct {
	limit int

	mu       sync.Mutex
	byMethod map[string]*callRing
	bySpan   map[trace.SpanID]*call
	own      recent[trace.TraceID, struct{}]
}

// callRing has the last calls of a method, so that polling one does not push out
// the others.
type callRing struct {
	all    []*call
	oldest int
}

// maxTraces bounds the traces remembered as the sandbox's own, and those of the
// guest whose place is.
const maxTraces = 1024

func newCalls(limit int) *calls {
	return &calls{
		limit:    limit,
		byMethod: make(map[string]*callRing),
		bySpan:   make(map[trace.SpanID]*call),
		own:      newRecent[trace.TraceID, struct{}](maxTraces),
	}
}

func (cs *calls) tell(c Call) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.SpanContext.HasTraceID() {
		cs.own.put(c.SpanContext.TraceID(), struct{}{})
	}
	if method, ok := aliases[c.Method]; ok {
		c.Method = method
	}
	if !causes[c.Method] || !c.SpanContext.IsValid() {
		return
	}
	known := cs.bySpan[c.SpanContext.SpanID()]
	if known == nil {
		known = cs.room(c.Method)
		cs.bySpan[c.SpanContext.SpanID()] = known
	} else if known.end != math.MaxInt64 {
		return // the beginning, told after the end
	}
	*known = call{Call: c, start: c.Start.UnixNano(), end: math.MaxInt64}
	if !c.End.IsZero() {
		known.end = c.End.UnixNano()
	}
}

// room returns a call to fill in, at the expense of the oldest of the method.
func (cs *calls) room(method string) *call {
	ring := cs.byMethod[method]
	if ring == nil {
		ring = new(callRing)
		cs.byMethod[method] = ring
	}
	c := new(call)
	if len(ring.all) < cs.limit {
		ring.all = append(ring.all, c)
		return c
	}
	delete(cs.bySpan, ring.all[ring.oldest].SpanContext.SpanID())
	ring.all[ring.oldest] = c
	ring.oldest = (ring.oldest + 1) % cs.limit
	return c
}

func (cs *calls) setOwn(id trace.TraceID) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.own.put(id, struct{}{})
}

// isOwn tells that the sandbox uses the trace.
func (cs *calls) isOwn(id trace.TraceID) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	_, ok := cs.own.get(id)
	return ok
}

// of returns the call whose span has the id.
func (cs *calls) of(id trace.SpanID) (call, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.bySpan[id]; c != nil {
		return *c, true
	}
	return call{}, false
}
