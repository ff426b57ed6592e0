package kata

import (
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

// boot notes what is seen of the VM's boot from outside, and makes its spans once the call
// that makes the VM is over: from the VMM's start until the agent answers. What was not
// seen is left out.
type boot struct {
	tracer   trace.Tracer
	attempts func() uint64 // of the runtime, to reach the agent; nil: they are not seen

	mu      sync.Mutex
	maker   *middleware.Call // the call that makes the VM; nil: none does yet
	program string           // the VMM's
	debug   string
	// vmm is when the VMM was executed, bound when it had its socket, up when the agent's
	// first span began, answers when it answered for the first time.
	vmm, bound, up, answers time.Time
	tried                   uint64
	late                    *time.Timer
	over                    bool
}

// bootGrace is how long after the call the agent's first spans are waited for: it sends
// them seconds after they have ended, and they may wait for their parents.
const bootGrace = 5 * time.Second

// tick is by how much a file's time may be too early: the kernel dates files by its ticks.
const tick = 10 * time.Millisecond

// began notes the call that makes the VM.
func (b *boot) began(c *middleware.Call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.maker == nil && !b.over && makesVM(c) && c.SpanContext().IsSampled() {
		b.maker = c
	}
}

// ended has the spans made soon, if the call was the one.
func (b *boot) ended(c *middleware.Call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.maker == c && !b.over {
		b.late = time.AfterFunc(bootGrace, b.make)
	}
}

// note notes a moment, if it is the first of its kind and belongs to the boot.
func (b *boot) note(of *time.Time, at time.Time) (noted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || b.maker == nil || !of.IsZero() || at.Add(tick).Before(b.maker.Start) {
		return false
	}
	if *of = at; at.Before(b.maker.Start) {
		*of = b.maker.Start
	}
	return true
}

// started notes the VMM, and looks at its command line.
func (b *boot) started(program string, pid int, at time.Time) {
	if !b.note(&b.vmm, at) {
		return
	}
	debug := kata.DebugWords(proc.Args(pid))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.program, b.debug = program, debug
}

// listens notes that the VMM has bound its socket: the file's time says when.
func (b *boot) listens(socket *os.File) {
	at := time.Now()
	var st unix.Stat_t
	if host.Control(socket, func(fd int) error { return unix.Fstat(fd, &st) }) == nil {
		if bound := time.Unix(st.Mtim.Unix()); bound.Before(at) {
			at = bound
		}
	}
	if !b.note(&b.bound, at) {
		_ = b.note(&b.bound, time.Now()) // the file's time is the VMM's to set
	}
}

// answered notes that the agent has answered.
func (b *boot) answered(at time.Time) {
	if !b.note(&b.answers, at) {
		return
	}
	if b.attempts != nil {
		n := b.attempts()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.tried = n
	}
}

// drawn is told of the spans of others, with their times on the host's clock
// (collate.Options).
func (b *boot) drawn(name string, guest bool, start, end time.Time) {
	switch {
	case guest:
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.maker != nil && !b.over && !start.Before(b.maker.Start) && (b.up.IsZero() || start.Before(b.up)) {
			b.up = start
		}
	case name == kata.ConnectSpan:
		b.answered(end)
	}
}

// make makes the spans.
func (b *boot) make() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || b.maker == nil {
		return
	}
	b.over = true
	if b.late != nil {
		b.late.Stop()
	}
	from, booted, until := first(b.vmm, b.bound), first(b.bound, b.vmm), first(b.answers, b.up)
	if from.IsZero() || until.Before(from) {
		return
	}
	var attrs []attribute.KeyValue
	for key, value := range map[string]string{names.VMProgram: b.program, names.VMDebug: b.debug} {
		if value != "" {
			attrs = append(attrs, attribute.String(key, value))
		}
	}
	if b.attempts != nil && !b.answers.IsZero() {
		attrs = append(attrs, attribute.Int64(names.VMAttempts, int64(b.tried)+1))
	}
	ctx, whole := b.tracer.Start(telemetry.Remote(b.maker.SpanContext()), names.VMBoot, trace.WithTimestamp(from), trace.WithAttributes(attrs...))
	phase := func(name string, from, until time.Time) {
		if from.IsZero() || !until.After(from) {
			return
		}
		_, span := b.tracer.Start(ctx, name, trace.WithTimestamp(from))
		span.End(trace.WithTimestamp(until))
	}
	if !b.vmm.IsZero() && !b.bound.IsZero() {
		phase(names.VMMStart, b.vmm, b.bound)
	}
	up := b.up
	if up.IsZero() || up.After(until) {
		up = until
	}
	phase(names.GuestBoot, booted, up)
	phase(names.AgentConnect, up, until)
	whole.End(trace.WithTimestamp(until))
}

// first returns the first of the moments that is known.
func first(moments ...time.Time) time.Time {
	for _, at := range moments {
		if !at.IsZero() {
			return at
		}
	}
	return time.Time{}
}

// VMM is told of the sandbox's VMM, when it was executed. It looks at the process, and must
// not be called where nobody may wait for that.
func (o *Observer) VMM(program string, pid int, at time.Time) { o.boot.started(program, pid, at) }

const proc = host.Proc("/proc")
