package helpers

import (
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/procevents"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

// process is a container's first process, or an exec in it.
type process struct{ container, exec string }

// nameless is a program that was executed when nobody could tell for whom: in a container,
// or by a process that was gone before it could be looked at. The answer to a call that was
// in flight then may still name the process. So the program waits until all those calls are
// over: which of them it belongs to is not guessed.
type nameless struct {
	pid    int
	at     time.Time
	helper *helper // that is over; nil: it was in a container
}

// executed notes that a container's program is executed. Whose it is follows from the
// command line by which an OCI runtime has made the process, or from an answer with the
// pid.
func (o *Observer) executed(r procevents.Report, at time.Time) {
	if p, ok := madeFor(r); ok {
		delete(o.pids, r.PID)
		o.execute(o.start(p), p, at)
		return
	}
	o.awaitName(&nameless{pid: r.PID, at: at})
}

// madeFor returns what an OCI runtime has made a process for.
func madeFor(r procevents.Report) (p process, ok bool) {
	switch r.Subcommand {
	case "create", "run", "restore":
		return process{container: r.Container}, r.Container != ""
	case "exec":
		return process{container: r.Container, exec: r.Exec}, r.Container != "" && r.Exec != ""
	}
	return process{}, false
}

// answered notes what an answer says of a container's process.
func (o *Observer) answered(c *middleware.Call) {
	if c.PID == 0 || c.Code != 0 || c.Method != "Create" && c.Method != "Start" {
		return
	}
	p := process{c.ContainerID, c.ExecID}
	if mine := o.start(p); mine != nil && mine.Call == c {
		if mine.named = true; !mine.executed.IsZero() {
			return
		}
	}
	if len(o.pids) >= maxPIDs {
		clear(o.pids)
	}
	o.pids[int(c.PID)] = p
}

// awaitName has something wait for its name, if there may yet be one.
func (o *Observer) awaitName(n *nameless) {
	o.nameless = append(o.nameless, n)
	o.Sandbox.Changed()
	o.name()
}

// name goes through the nameless programs and settles what can be settled now.
func (o *Observer) name() {
	all := o.nameless
	o.nameless = nil
	for i, n := range all {
		p, known := o.pids[n.pid]
		switch {
		case known:
			delete(o.pids, n.pid)
			o.drop(n)
			o.execute(o.start(p), p, n.at)
		case len(all)-i <= maxHelpers && o.mayBeNamed(n):
			o.nameless = append(o.nameless, n)
		case n.helper != nil:
			o.over(n.helper)
		default:
			o.doubtful(n)
		}
	}
}

// drop forgets the helper that was a container's program.
func (o *Observer) drop(n *nameless) {
	if n.helper != nil {
		o.forget(n.helper)
	}
}

// mayBeNamed reports whether a call whose answer names a process was in flight then, and
// still is.
func (o *Observer) mayBeNamed(n *nameless) bool {
	return !o.closed && slices.ContainsFunc(o.calls, func(c *call) bool {
		return c.end.IsZero() && (c.Method == "Create" || c.Method == "Start") && !c.Start.After(n.at.Add(clockSlack))
	})
}

// doubtful notes a container's program that no answer has named. If just one Start that has
// named no process was in flight, that Start has started the program, and then failed.
func (o *Observer) doubtful(n *nameless) {
	var one *call
	for _, c := range o.calls {
		if c.Method != "Start" || c.named || !c.executed.IsZero() || !c.inFlight(n.at) {
			continue
		}
		if one != nil {
			o.execute(nil, process{}, n.at)
			return
		}
		one = c
	}
	var p process
	if one != nil {
		p = process{one.ContainerID, one.ExecID}
	}
	o.execute(one, p, n.at)
}

// start returns the last call that has started a process, nil if there is none.
func (o *Observer) start(p process) *call {
	if p.container == "" {
		return nil
	}
	for _, c := range slices.Backward(o.calls) {
		if c.Method == "Start" && c.ContainerID == p.container && c.ExecID == p.exec {
			return c
		}
	}
	return nil
}

// execute notes that a program was executed, at the call that executed it; nil: at none.
func (o *Observer) execute(c *call, p process, at time.Time) {
	if p.exec == "" && o.first.IsZero() {
		o.first = at
		o.awaited()
		o.Sandbox.Changed()
	}
	switch {
	case !o.Sandbox.On():
	case c == nil || c.told || !c.executed.IsZero():
		parent := o.Sandbox.Root()
		if c != nil {
			parent = c.SpanContext()
		}
		attrs := o.Sandbox.Attributes(p.container)
		if p.container != "" {
			attrs = telemetry.ContainerAttributes(p.container, attrs)
		}
		if p.exec != "" {
			attrs = append(slices.Clip(attrs), attribute.String(names.Exec, p.exec))
		}
		_, span := o.Tracer.Start(telemetry.Remote(parent), names.ProgramExecuted, trace.WithTimestamp(at), trace.WithAttributes(attrs...))
		span.AddEvent(names.ProgramExecuted, trace.WithTimestamp(at))
		span.End(trace.WithTimestamp(at))
	default:
		c.executed = at
	}
}
