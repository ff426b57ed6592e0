package helpers

import (
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/procevents"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

// Sandbox is what the relay knows of the sandbox. Its methods must not block.
type Sandbox interface {
	// On reports whether anything is recorded now.
	On() bool
	// Root returns the context of the span that what no call has caused belongs under.
	Root() trace.SpanContext
	// Attributes returns the span attributes of a container, as far as they are known.
	Attributes(container string) []attribute.KeyValue
	// Changed tells that Observer.Save would return something else.
	Changed()
}

// Options are what an Observer is made of.
type Options struct {
	Sandbox Sandbox
	Tracer  trace.Tracer
	// Losses counts what could not be seen.
	Losses *losses.Tally
	// VMM is told of each VMM, from Report. Nil: nobody is.
	VMM func(r procevents.Report, at time.Time)
	// Slow is how long a helper takes below a quiet call before both are recorded.
	Slow time.Duration
}

// Observer follows the calls and the helpers of one sandbox. It is safe for concurrent
// use.
type Observer struct {
	middleware.NopObserver
	Options

	mu       sync.Mutex
	calls    []*call // in the order of their starts
	open     map[int]*helper
	pids     map[int]process    // of containers' processes, by answers, whose program was not told of
	nameless []*nameless        // in the order in which they were told of
	closed   bool               // no answer will come any more
	seen     map[int]bool       // in a list that is being told
	keep     []*middleware.Call // quiet calls with something recorded below them; see unlock
	first    time.Time          // a container's program was executed; zero: none was yet
	await    chan struct{}      // closed then, or when there is nothing to wait for
}

const (
	// maxHelpers bounds the helpers that run or wait for the end of their call.
	maxHelpers = 1024
	// maxOver is how many calls are remembered that are over: what has happened in one may
	// be told shortly after its end.
	maxOver = 64
	// maxPIDs bounds what is remembered of processes in containers.
	maxPIDs = 1024
)

// New returns an Observer.
func New(o Options) *Observer {
	return &Observer{Options: o, open: make(map[int]*helper), pids: make(map[int]process), seen: make(map[int]bool), await: make(chan struct{})}
}

// SetSlow changes Options.Slow.
func (o *Observer) SetSlow(slow time.Duration) {
	o.mu.Lock()
	defer o.unlock()
	o.Slow = slow
}

var _ middleware.Observer = (*Observer)(nil)

// Report is told of a helper.
func (o *Observer) Report(r procevents.Report) {
	at, forked := wall(r.At), wall(r.Forked)
	o.mu.Lock()
	defer o.unlock()
	switch r.Kind {
	case procevents.Began:
		o.began(r, forked, at)
		o.vmm(r, at)
	case procevents.Runs:
		if h := o.open[r.PID]; h == nil || !h.is(r) {
			o.began(r, forked, at)
		}
		o.vmm(r, at)
		o.seen[r.PID] = true
	case procevents.Listed:
		for pid, h := range o.open {
			if !o.seen[pid] && !h.over {
				h.lost = true
				o.end(h, time.Now())
			}
		}
		clear(o.seen)
	case procevents.Ended:
		if h := o.open[r.PID]; h != nil && h.is(r) {
			h.status, h.CPU, h.lost = status(r.Status), r.CPU, h.lost || r.Lost > 0
			o.end(h, at)
		}
	case procevents.Inside:
		o.executed(r, at)
	case procevents.Dropped:
		o.dropped()
	}
}

func (o *Observer) vmm(r procevents.Report, at time.Time) {
	if r.Role == procevents.VMM && o.VMM != nil {
		o.VMM(r, at)
	}
}

// wall returns a moment on CLOCK_MONOTONIC by the host's clock.
func wall(at time.Duration) time.Time { return time.Now().Add(at - procevents.Now()) }

// Unrecorded tells that there will be no reports.
func (o *Observer) Unrecorded() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.awaited()
}

// dropped notes that something was not seen that has happened below the calls in flight.
func (o *Observer) dropped() {
	if !o.Sandbox.On() {
		return
	}
	for _, c := range o.calls {
		if c.end.IsZero() && !c.Quiet() && !c.lost {
			c.lost = true
			o.Losses.Add(losses.ProcessEvents, 1)
		}
	}
	for _, h := range o.open {
		h.lost = h.lost || !h.over
	}
}

// began begins the span of a helper.
func (o *Observer) began(r procevents.Report, forked, at time.Time) {
	if old := o.open[r.PID]; old != nil && !old.over {
		old.replaced = old.is(r)
		old.lost = !old.replaced
		o.end(old, at)
	}
	if !o.Sandbox.On() {
		return
	}
	if len(o.open) >= maxHelpers {
		o.Losses.Add(losses.ProcessEvents, 1)
		return
	}
	h := &helper{Report: r, at: at}
	if h.call = o.callOf(r, forked); r.Kind == procevents.Runs && h.call != nil {
		h.at = later(at, h.call.Start)
	}
	parent := o.Sandbox.Root()
	switch above := o.open[r.Above]; {
	case above != nil && above.span != nil:
		parent = above.span.SpanContext()
		h.above = above
	case h.call != nil:
		parent = h.call.SpanContext()
	}
	h.parent = parent
	_, h.span = o.Tracer.Start(telemetry.Remote(parent), h.name(), trace.WithTimestamp(h.at))
	o.open[r.PID] = h
	o.Sandbox.Changed()
}

// end ends a helper. One that nobody could look at may have been a container's program.
func (o *Observer) end(h *helper, at time.Time) {
	h.end, h.over = at, true
	o.Sandbox.Changed()
	if h.Program == "" {
		o.awaitName(&nameless{pid: h.PID, at: h.at, helper: h})
		return
	}
	o.over(h)
}

// over records a helper that is over. What it means that it has failed is clear only when
// its call is over, too.
func (o *Observer) over(h *helper) {
	if h.call != nil && h.call.end.IsZero() && h.failed() {
		h.call.held = append(h.call.held, h)
		return
	}
	o.record(h)
}

// forget removes a helper that is over.
func (o *Observer) forget(h *helper) {
	if o.open[h.PID] == h {
		delete(o.open, h.PID)
	}
}

// record makes the span of a helper that is over.
func (o *Observer) record(h *helper) {
	o.forget(h)
	if h.call != nil && h.call.Quiet() {
		if !h.failed() && !h.keep && h.end.Sub(h.at) < o.Slow {
			return
		}
		o.keep = append(o.keep, h.call.Call)
		for a := h.above; a != nil; a = a.above {
			a.keep = true
		}
	}
	attrs := h.attributes()
	if h.Container != "" && (h.call == nil || h.call.ContainerID == h.Container) {
		attrs = append(attrs, telemetry.ContainerAttributes(h.Container, o.Sandbox.Attributes(h.Container))...)
	}
	h.span.SetAttributes(attrs...)
	h.setStatus()
	h.span.End(trace.WithTimestamp(later(h.end, h.at)))
}

// Close records what still runs. The ends of the last helpers, which the inner shim has
// waited for, may yet be on their way.
func (o *Observer) Close() {
	for end := time.Now().Add(lastWords); o.running() && time.Now().Before(end); {
		time.Sleep(lastWords / 20)
	}
	o.mu.Lock()
	defer o.unlock()
	o.awaited()
	o.closed = true
	o.name()
	for _, c := range o.calls {
		o.release(c)
	}
	now := time.Now()
	for _, h := range o.open {
		h.call, h.lost = nil, true
		o.end(h, now)
	}
}

// lastWords is how long Close waits for the ends of helpers.
const lastWords = 200 * time.Millisecond

// unlock has the calls recorded that something below them keeps. A call that is over is
// recorded at once, and annotated by the Observer: not while it is locked.
func (o *Observer) unlock() {
	keep := o.keep
	o.keep = nil
	o.mu.Unlock()
	for _, c := range keep {
		c.Keep()
	}
}

// running reports whether helpers run, as far as was told.
func (o *Observer) running() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, h := range o.open {
		if !h.over {
			return true
		}
	}
	return false
}

// First returns when a container's program was first executed. It waits for that at most
// as long as given, if that may yet be told.
func (o *Observer) First(most time.Duration) (at time.Time, ok bool) {
	select {
	case <-o.await:
	case <-time.After(most):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first, !o.first.IsZero()
}

func (o *Observer) awaited() {
	select {
	case <-o.await:
	default:
		close(o.await)
	}
}
