package helpers

import (
	"math"
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
	// Changed is called when Observer.Save would return something else.
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
	// Alive reports whether the inner shim's process is still there, so that its last report
	// is not about to come; nil: it is not.
	Alive func() bool
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
	pids     map[int]process    // that answers have named, before their program was reported
	nameless []*nameless        // in the order in which they were reported
	closed   bool               // no answer will come any more, and nothing is recorded
	told     bool               // reports came, and the last one has not yet
	seen     map[int]bool       // pids in the list that is being reported
	keep     []*middleware.Call // quiet calls with something recorded below them; see unlock
	patience time.Duration      // lastWords
	first    time.Time          // when a container's program was executed; zero: none was yet
	await    chan struct{}      // closed then, or when there is nothing to wait for
}

const (
	// maxHelpers bounds the helpers that run or wait for the end of their call.
	maxHelpers = 1024
	// maxOver is how many calls that are over are remembered: what happened in a call may
	// be reported shortly after its end.
	maxOver = 64
	// maxPIDs bounds what is remembered of processes in containers.
	maxPIDs = 1024
)

// New returns an Observer.
func New(o Options) *Observer {
	return &Observer{Options: o, open: make(map[int]*helper), pids: make(map[int]process), seen: make(map[int]bool), await: make(chan struct{}), patience: lastWords}
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
	if o.closed {
		o.late(r)
		return
	}
	o.told = r.Kind != procevents.Over
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

// wall converts a moment on CLOCK_MONOTONIC to the host's clock. Two clocks cannot be read
// at once, and this process may be without a processor between the two readings. So they
// are read again, a few times, until the readings are close together.
func wall(at time.Duration) time.Time {
	best, least := time.Time{}, time.Duration(math.MaxInt64)
	for range 8 {
		before := time.Now()
		now := procevents.Now()
		took := time.Since(before)
		if took < least {
			best, least = before.Add(at-now), took
		}
		if least < clockSlack/10 {
			break
		}
	}
	return best
}

// Unrecorded is called when there will be no reports.
func (o *Observer) Unrecorded() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.told = false
	o.awaited()
}

// late counts what is reported after Close, and so has no span.
func (o *Observer) late(r procevents.Report) {
	if (r.Kind == procevents.Began || r.Kind == procevents.Inside) && o.Sandbox.On() {
		o.Losses.Add(losses.Shutdown, 1)
	}
}

// dropped notes that something that happened below the calls in flight was not seen.
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

// end ends a helper. A helper that nobody could look at may have been a container's
// program.
func (o *Observer) end(h *helper, at time.Time) {
	h.end, h.over = at, true
	o.Sandbox.Changed()
	if h.Program == "" {
		o.awaitName(&nameless{pid: h.PID, at: h.at, helper: h})
		return
	}
	o.over(h)
}

// over records a helper that is over. What a failure means is clear only when the helper's
// call is over as well.
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

// Close records what still runs, after it has waited for the last report: reports may still
// be on their way when the inner shim has ended.
func (o *Observer) Close() {
	for began := time.Now(); o.expects(); time.Sleep(lastWords / 200) {
		waited := time.Since(began)
		if waited > o.patience || waited > lastWords/10 && o.Alive != nil && o.Alive() {
			break
		}
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

// lastWords bounds how long Close waits for the last report; if the inner shim does not
// end, it waits for a tenth of that. Nobody waits for Close.
const lastWords = 2 * time.Second

// unlock unlocks the Observer, and then has those quiet calls recorded that have something
// recorded below them. It does so unlocked, since a call that is over is recorded at once,
// and the Observer annotates it.
func (o *Observer) unlock() {
	keep := o.keep
	o.keep = nil
	o.mu.Unlock()
	for _, c := range keep {
		c.Keep()
	}
}

// expects reports whether there will be reports, as far as is known.
func (o *Observer) expects() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told
}

// First returns when a container's program was first executed. It waits at most as long as
// given, and only while that may still be reported.
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
