package evidence

import (
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/middleware"
)

// Usage is a middleware.Observer that says of long calls what the inner shim and the VMM
// did meanwhile: whether they computed or waited, and for the disk.
type Usage struct {
	middleware.NopObserver
	proc host.Proc
	slow atomic.Int64 // nanoseconds

	inner, vmm atomic.Pointer[host.Process]

	mu   sync.Mutex
	open map[*middleware.Call]looks // calls that have begun
}

// looks are what the inner shim and the VMM had used.
type looks struct{ inner, vmm host.Usage }

// works are the methods that have a shim work for long. To look at its processes takes some
// ten microseconds, too many for those that are polled.
var works = map[string]bool{
	"Create": true, "Start": true, "Delete": true, "Kill": true, "Update": true, "Pause": true, "Resume": true,
	"Checkpoint": true, "Shutdown": true, "CreateSandbox": true, "StartSandbox": true, "StopSandbox": true, "ShutdownSandbox": true,
}

// maxCalls bounds the calls that are watched.
const maxCalls = 1024

// NewUsage returns an observer. Calls that take at least as long as slow are long.
func NewUsage(proc host.Proc, slow time.Duration) *Usage {
	u := &Usage{proc: proc, open: make(map[*middleware.Call]looks)}
	u.SetSlow(slow)
	return u
}

// SetSlow changes how long a call takes at least to be long.
func (u *Usage) SetSlow(slow time.Duration) { u.slow.Store(int64(slow)) }

var _ middleware.Observer = (*Usage)(nil)

// Inner says which process the inner shim is, VMM which the VMM. Calls that begin from now
// on say what these did.
func (u *Usage) Inner(p host.Process) { u.inner.Store(&p) }

// VMM is for the VMM.
func (u *Usage) VMM(p host.Process) { u.vmm.Store(&p) }

// Began implements middleware.Observer.
func (u *Usage) Began(c *middleware.Call) {
	if c.Quiet() || !works[c.Method] || !c.SpanContext().IsSampled() {
		return
	}
	l := u.look()
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.open) < maxCalls {
		u.open[c] = l
	}
}

func (u *Usage) look() (l looks) {
	for p, to := range map[*host.Process]*host.Usage{u.inner.Load(): &l.inner, u.vmm.Load(): &l.vmm} {
		if p != nil {
			*to, _ = u.proc.Usage(*p)
		}
	}
	return l
}

// Annotate implements middleware.Observer.
func (u *Usage) Annotate(c *middleware.Call, span trace.Span) {
	u.mu.Lock()
	before, known := u.open[c]
	delete(u.open, c)
	u.mu.Unlock()
	if !known || c.End.Sub(c.Start) < time.Duration(u.slow.Load()) {
		return
	}
	now := u.look()
	span.SetAttributes(since(before.inner, now.inner, names.InnerCPUTime, names.InnerFaults)...)
	span.SetAttributes(since(before.vmm, now.vmm, names.VMMCPUTime, names.VMMFaults)...)
}

// since returns what was used between two looks, nothing if one of them was in vain. For a
// VMM that was started between them, all that it has used counts.
func since(before, now host.Usage, cpu, faults string) []attribute.KeyValue {
	if now.Start == 0 || before.Start != 0 && before.Start != now.Start {
		return nil
	}
	return []attribute.KeyValue{
		attribute.Int64(cpu, int64(max(0, now.CPU-before.CPU))),
		attribute.Int64(faults, max(0, now.MajorFaults-before.MajorFaults)),
	}
}
