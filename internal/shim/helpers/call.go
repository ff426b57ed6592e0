package helpers

import (
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/procevents"
	"github.com/shimtrace/shimtrace/middleware"
)

// call is a call that is in flight, or was a moment ago.
type call struct {
	*middleware.Call
	end      time.Time // zero: it is in flight
	failed   bool
	lost     bool      // events were dropped meanwhile
	named    bool      // its answer has the pid of what it has started
	executed time.Time // a container's program
	told     bool      // its span has that already, or has ended without it
	held     []*helper // helpers that have ended, and wait for the call's end
}

// loud reports whether the call is recorded whatever becomes of it.
func (c *call) loud() bool { return !c.Quiet() }

// Began implements middleware.Observer. A call that only waits executes nothing.
func (o *Observer) Began(c *middleware.Call) {
	if c.Stream || c.Waits() || !c.SpanContext().IsSampled() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if over := len(o.calls) - maxOver; over > 0 {
		n := 0
		o.calls = slices.DeleteFunc(o.calls, func(c *call) bool {
			n++
			return n <= over && !c.end.IsZero()
		})
	}
	mine := &call{Call: c}
	o.calls = append(o.calls, mine)
	for _, h := range o.open { // perhaps of a call that another process has begun
		if h.call == nil && h.parent.SpanID() == c.SpanContext().SpanID() {
			h.call = mine
		}
	}
}

// Answered implements middleware.Observer.
func (o *Observer) Answered(c *middleware.Call) {
	o.mu.Lock()
	defer o.unlock()
	o.answered(c)
	o.ended(c, c.Code != 0 && !c.Expected)
}

// Lost implements middleware.Observer.
func (o *Observer) Lost(c *middleware.Call) {
	o.mu.Lock()
	defer o.unlock()
	o.ended(c, false)
}

func (o *Observer) ended(c *middleware.Call, failed bool) {
	defer o.name()
	for _, mine := range o.calls {
		if mine.Call == c && mine.end.IsZero() {
			mine.end, mine.failed = c.End, failed
			o.release(mine)
			return
		}
	}
}

// release records the helpers that have waited for the end of their call.
func (o *Observer) release(c *call) {
	held := c.held
	c.held = nil
	for _, h := range held {
		o.record(h)
	}
}

// Annotate implements middleware.Observer.
func (o *Observer) Annotate(c *middleware.Call, span trace.Span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, mine := range o.calls {
		if mine.Call != c {
			continue
		}
		mine.told = true
		if !mine.executed.IsZero() {
			span.AddEvent(names.ProgramExecuted, trace.WithTimestamp(mine.executed))
		}
		if mine.lost {
			span.SetAttributes(attribute.Bool(names.ProcessEventsLost, true))
		}
	}
}

// methods maps a subcommand of an OCI runtime to the task method that calls it (containerd,
// cmd/containerd-shim-runc-v2/process).
var methods = map[string]string{
	"create": "Create", "run": "Create", "restore": "Create", "start": "Start", "exec": "Start",
	"kill": "Kill", "delete": "Delete", "pause": "Pause", "resume": "Resume", "update": "Update",
	"checkpoint": "Checkpoint", "ps": "Pids",
}

// callOf returns the call that caused a helper, nil if none did or if that cannot be told.
// Of the calls that were in flight when the helper was forked it is the one that the
// helper's command line names: by the container, the exec and the subcommand. Otherwise it
// is the call that began last, a quiet one only if there is no other. If several calls were
// in flight, nothing tells to which of them a program without a name belongs.
func (o *Observer) callOf(r procevents.Report, forked time.Time) *call {
	if above := o.open[r.Above]; above != nil {
		return above.call
	}
	if r.Kind == procevents.Runs {
		forked = forked.Add(tick)
	}
	if r.Container != "" {
		does := func(c *call) bool {
			return kata.TaskMethod(c.Method) == methods[r.Subcommand] && (r.Exec == "" || c.ExecID == r.Exec)
		}
		for _, also := range []func(*call) bool{does, (*call).loud} {
			if c := o.latest(forked, func(c *call) bool { return c.ContainerID == r.Container && also(c) }); c != nil {
				return c
			}
		}
	}
	for _, of := range []func(*call) bool{(*call).loud, func(*call) bool { return true }} {
		c := o.latest(forked, of)
		switch {
		case c == nil:
		case r.Program == "" && o.latest(forked, func(other *call) bool { return other != c && of(other) }) != nil:
			return nil
		default:
			return c
		}
	}
	return nil
}

// tick is by how much a time that the kernel counts in clock ticks may be too early.
const tick = 10 * time.Millisecond

// clockSlack is by how much two clocks, read one after the other, may seem to differ.
const clockSlack = time.Millisecond

// inFlight reports whether the call was in flight at a moment.
func (c *call) inFlight(at time.Time) bool {
	return !c.Start.After(at.Add(clockSlack)) && (c.end.IsZero() || !c.end.Before(at))
}

// latest returns the call that began last of those that were in flight at a moment and for
// which has is true; nil if there is none.
func (o *Observer) latest(at time.Time, has func(*call) bool) *call {
	for _, c := range slices.Backward(o.calls) {
		if c.inFlight(at) && has(c) {
			return c
		}
	}
	return nil
}
