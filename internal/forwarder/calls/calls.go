package calls

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// Calls are the calls of one sandbox. They are safe for concurrent use.
type Calls struct {
	opts  Options
	began int64 // Options.Began, or math.MinInt64 if unknown
	rules atomic.Pointer[Rules]

	mu        sync.Mutex
	onDemand  bool
	windows   windows
	byMethod  map[string]*ring
	requests  ring // to the agent; nothing is inferred from these
	bySpan    map[trace.SpanID]*call
	forgotten recent.Map[trace.SpanID, trace.SpanContext] // calls of which only the context is kept
	traces    recent.Map[trace.TraceID, traceOf]          // the sandbox's and its runtime's
	created   recent.Map[process, struct{}]               // containers and execs
	execs     recent.Map[string, string]                  // by the guest's names
	clock     clock                                       // the guest's
	runtime   recent.Map[trace.SpanID, runtimeSpan]
	parents   parents

	hasRuntime bool // some of the runtime's spans have arrived
}

// Clock returns the offset that turns the guest's present times into the host's, and how
// often the guest's clock was set. known is false until a span has told.
func (c *Calls) Clock() (offset time.Duration, set int, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.clock.latest()
	if k == nil {
		return 0, 0, false
	}
	return time.Duration(k.offset), c.clock.epoch, true
}

// traceOf says whose a trace is.
type traceOf struct{ sandbox, runtimes bool }

// Call is a call of the shim, or a request to the agent.
type Call struct {
	Method string // "Create"
	// In calls of the sandbox service, ContainerID is the sandbox's id.
	ContainerID, ExecID string
	// Start is when the request was read. End is when it was answered or given up; zero while
	// it is open.
	Start, End time.Time
	// Failed: the answer was an error, or there was none.
	Failed bool
	// Quiet: the call is recorded only if it fails or is slow. Calls of the methods in
	// Options.Quiet need not set it.
	Quiet bool
	// SpanContext is the context of the call's span.
	SpanContext trace.SpanContext
}

// call is a remembered Call.
type call struct {
	Call
	start, end int64    // Unix nanoseconds; end is math.MaxInt64 while open
	seen       []string // names of runtime's spans and of requests that were matched to it
}

// maxSeen bounds the names remembered for a call. runtime-rs serves one with two spans,
// and asks the agent for two or three things.
const maxSeen = 8

func (c *call) see(name string) {
	if len(c.seen) < maxSeen && !slices.Contains(c.seen, name) {
		c.seen = append(c.seen, name)
	}
}

// serving returns the period in which the call was served. A failed call may have been given up
// while the runtime went on serving it.
func (c *call) serving() Period {
	if c.Failed {
		return Period{c.start, math.MaxInt64}
	}
	return Period{c.start, c.end}
}

// ring holds the last calls of one method, so that a polled method does not evict the others.
type ring struct {
	all    []*call
	oldest int
}

const (
	// maxTraces bounds the remembered traces.
	maxTraces = 1024
	// maxForgotten bounds the calls of which only the context is remembered.
	maxForgotten = 512
	// maxExecs bounds the remembered names of execs.
	maxExecs = 256
)

// New returns the Calls of a sandbox, without any call yet.
func New(opts Options) *Calls {
	opts.defaults()
	c := &Calls{
		opts:      opts,
		began:     math.MinInt64,
		windows:   newWindows(opts),
		byMethod:  make(map[string]*ring),
		bySpan:    make(map[trace.SpanID]*call),
		forgotten: recent.New[trace.SpanID, trace.SpanContext](maxForgotten),
		traces:    recent.New[trace.TraceID, traceOf](maxTraces),
		created:   recent.New[process, struct{}](maxProcesses),
		execs:     recent.New[string, string](maxExecs),
		runtime:   recent.New[trace.SpanID, runtimeSpan](maxRuntimeSpans),
		parents:   newParents(),
		onDemand:  opts.OnDemand,
	}
	c.SetRules(Rules{Quiet: opts.Quiet, Slow: opts.Slow, QuietSpans: opts.QuietSpans})
	if !opts.Began.IsZero() {
		c.began = opts.Began.UnixNano()
	}
	c.addTrace(opts.Root.TraceID())
	return c
}

// Call reports a call of the shim: once when it begins and once when it has ended, in either
// order.
func (c *Calls) Call(told Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addTrace(told.SpanContext.TraceID())
	told.Method = kata.TaskMethod(told.Method)
	c.create(&told)
	if !isTask[told.Method] {
		return
	}
	told.Quiet = told.Quiet || c.isQuiet(told.Method)
	r := c.byMethod[told.Method]
	if r == nil {
		r = new(ring)
		c.byMethod[told.Method] = r
	}
	c.put(told, r)
}

// Request reports a request to the agent: once when it was sent and once when it has ended, in
// either order. caller is Request.Caller.
func (c *Calls) Request(told Call, caller trace.SpanContext) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.create(&told)
	if told.SpanContext.IsValid() {
		c.put(told, &c.requests)
	}
	if !told.End.IsZero() && caller.IsValid() && told.SpanContext.IsSampled() && !told.Quiet {
		c.requested(caller.SpanID(), Period{told.Start.UnixNano(), told.End.UnixNano()})
	}
}

// put remembers a call, or its end, in a ring. A call without a span only helps to infer clocks
// and causes, so it is taken once it has ended.
func (c *Calls) put(told Call, r *ring) {
	id, spanned := told.SpanContext.SpanID(), told.SpanContext.IsValid()
	if !spanned && told.End.IsZero() {
		return
	}
	known := c.bySpan[id]
	if known == nil {
		known = c.room(r)
		if spanned {
			c.bySpan[id] = known
		}
	} else if known.end != math.MaxInt64 {
		return // the beginning, reported after the end
	} else {
		told.Quiet = known.Quiet // as it was then
	}
	*known = call{Call: told, start: told.Start.UnixNano(), end: math.MaxInt64, seen: known.seen}
	if !told.End.IsZero() {
		known.end = told.End.UnixNano()
	}
}

// room returns a call to fill in, and evicts the ring's oldest if it is full.
func (c *Calls) room(r *ring) *call {
	known := new(call)
	if len(r.all) < c.opts.MaxCalls {
		r.all = append(r.all, known)
		return known
	}
	if oldest := r.all[r.oldest].SpanContext; oldest.IsValid() {
		delete(c.bySpan, oldest.SpanID())
		c.forgotten.Put(oldest.SpanID(), oldest)
	}
	r.all[r.oldest] = known
	r.oldest = (r.oldest + 1) % c.opts.MaxCalls
	return known
}

// AddTrace adds a trace to the sandbox's: its relay or its runtime hands contexts of this trace
// to the agent. Spans with such a context keep it. The traces of Options.Root and of each Call
// need not be added.
func (c *Calls) AddTrace(id trace.TraceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addTrace(id)
}

func (c *Calls) addTrace(id trace.TraceID) {
	if id.IsValid() {
		known, _ := c.traces.Get(id)
		known.sandbox = true
		c.traces.Put(id, known)
	}
}

// HasTrace reports whether a trace is the sandbox's.
func (c *Calls) HasTrace(id trace.TraceID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	root := c.windows.last()
	known, _ := c.traces.Get(id)
	return known.sandbox || root.IsValid() && root.TraceID() == id
}

// Knows returns the context of a span of the host: of a call, a request to the agent, or the
// sandbox's root. It reports false for any other span.
func (c *Calls) Knows(id trace.SpanID) (trace.SpanContext, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.of(id)
	return known.SpanContext, ok
}

// of returns the call or request whose span has the id. For old calls and the sandbox's root
// only the context is set.
func (c *Calls) of(id trace.SpanID) (call, bool) {
	if root := c.windows.that(func(r trace.SpanContext) bool { return r.SpanID() == id }); root != nil {
		return call{Call: Call{SpanContext: root.SpanContext}}, true
	}
	if known := c.bySpan[id]; known != nil {
		return *known, true
	}
	sc, ok := c.forgotten.Get(id)
	return call{Call: Call{SpanContext: sc}}, ok
}
