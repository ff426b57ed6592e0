package collate

import (
	"math"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/kata"
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
	// Quiet: it is recorded only when it fails or is slow. Calls of the methods in
	// Options.Quiet need not say so.
	Quiet bool
	// SpanContext is that of the call's span.
	SpanContext trace.SpanContext
}

// call is a Call as it is remembered.
type call struct {
	Call
	start, end int64    // Unix nanoseconds; end is math.MaxInt64 while open
	seen       []string // names of the runtime's spans, and of requests, that were taken to be of it
}

// maxSeen bounds the names remembered for a call. runtime-rs serves one with two spans,
// and asks the agent for two or three things.
const maxSeen = 8

func (c *call) see(name string) {
	if len(c.seen) < maxSeen && !slices.Contains(c.seen, name) {
		c.seen = append(c.seen, name)
	}
}

func (c *call) holds(at int64) bool { return c.start <= at && at <= c.end }

// calls remembers the sandbox's calls and which traces are its own. Its lock is
// not the Collator's, so that telling of a call never waits for spans.
type calls struct {
	limit int

	mu       sync.Mutex
	byMethod map[string]*callRing
	requests callRing // to the agent; not what anything is inferred from
	bySpan   map[trace.SpanID]*call
	own      recent[trace.TraceID, struct{}]
	runtime  recent[trace.TraceID, struct{}]
	stale    recent[trace.SpanID, struct{}]      // of the runtime's, that no request is below
	created  recent[process, struct{}]           // containers and execs
	promised recent[trace.SpanID, trace.TraceID] // of the runtime's: the trace to come into
	promises []promise
	over     recent[trace.SpanID, trace.SpanContext] // calls that are no more among these
	root     trace.SpanContext
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

// maxStale bounds the runtime's calls remembered because its requests may go on to
// name them: those of containers, and of their execs.
const maxStale = 4096

// maxOver bounds the calls of which no more than the context is remembered.
const maxOver = 512

func newCalls(limit int) *calls {
	return &calls{
		limit:    limit,
		byMethod: make(map[string]*callRing),
		bySpan:   make(map[trace.SpanID]*call),
		own:      newRecent[trace.TraceID, struct{}](maxTraces),
		runtime:  newRecent[trace.TraceID, struct{}](maxTraces),
		stale:    newRecent[trace.SpanID, struct{}](maxStale),
		created:  newRecent[process, struct{}](maxProcesses),
		over:     newRecent[trace.SpanID, trace.SpanContext](maxOver),
		promised: newRecent[trace.SpanID, trace.TraceID](maxTraces),
	}
}

func (cs *calls) tell(c Call) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.SpanContext.HasTraceID() {
		cs.own.put(c.SpanContext.TraceID(), struct{}{})
	}
	c.Method = kata.TaskMethod(c.Method)
	cs.create(&c)
	if !causes[c.Method] && runtimeCalls[c.Method] == nil {
		return
	}
	ring := cs.byMethod[c.Method]
	if ring == nil {
		ring = new(callRing)
		cs.byMethod[c.Method] = ring
	}
	cs.put(c, ring)
}

// put remembers a call in a ring, or its end. One without a span tells of clocks and
// causes only, once it is over.
func (cs *calls) put(c Call, ring *callRing) {
	id, spanned := c.SpanContext.SpanID(), c.SpanContext.IsValid()
	if !spanned && c.End.IsZero() {
		return
	}
	known := cs.bySpan[id]
	if known == nil {
		known = cs.room(ring)
		if spanned {
			cs.bySpan[id] = known
		}
	} else if known.end != math.MaxInt64 {
		return // the beginning, told after the end
	}
	*known = call{Call: c, start: c.Start.UnixNano(), end: math.MaxInt64, seen: known.seen}
	if !c.End.IsZero() {
		known.end = c.End.UnixNano()
	}
}

// room returns a call to fill in, at the expense of the oldest of the ring.
func (cs *calls) room(ring *callRing) *call {
	c := new(call)
	if len(ring.all) < cs.limit {
		ring.all = append(ring.all, c)
		return c
	}
	oldest := ring.all[ring.oldest].SpanContext
	if oldest.IsValid() {
		delete(cs.bySpan, oldest.SpanID())
		cs.over.put(oldest.SpanID(), oldest)
	}
	ring.all[ring.oldest] = c
	ring.oldest = (ring.oldest + 1) % cs.limit
	return c
}

func (cs *calls) setOwn(id trace.TraceID) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.own.put(id, struct{}{})
}

// setRuntime tells that the sandbox's runtime records its own spans in the trace.
func (cs *calls) setRuntime(id trace.TraceID) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.runtime.put(id, struct{}{})
}

// setStale tells that a span of the runtime's is none that a request could be below.
func (cs *calls) setStale(id trace.SpanID) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.stale.put(id, struct{}{})
}

// isRuntime tells that the trace is one of the runtime's own.
func (cs *calls) isRuntime(id trace.TraceID) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	_, ok := cs.runtime.get(id)
	return ok
}

func (cs *calls) hasRuntime() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.runtime.entries) > 0
}

// isOwn tells that the sandbox uses the trace.
func (cs *calls) isOwn(id trace.TraceID) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.root.IsValid() && cs.root.TraceID() == id {
		return true
	}
	_, ok := cs.own.get(id)
	return ok
}

// of returns the call whose span has the id, or nothing but its context if it was long
// ago.
func (cs *calls) of(id trace.SpanID) (call, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.bySpan[id]; c != nil {
		return *c, true
	}
	sc, ok := cs.over.get(id)
	return call{Call: Call{SpanContext: sc}}, ok
}
