package relay

import (
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/evidence"
)

const (
	procDir   = "/proc"
	cgroupDir = "/sys/fs/cgroup"
)

// gatherEvidence has the sandbox's root say what the host suffered from meanwhile, and long
// calls what the inner shim and the VMM did. A process that goes on for another one does
// not know how the start began.
func (p *Process) gatherEvidence() {
	p.usage = evidence.NewUsage(host.Proc(procDir), time.Duration(p.Config.Trace.Slow))
	p.sandbox.rootAttributes = append(p.sandbox.rootAttributes, func() (attrs []attribute.KeyValue) {
		if p.pressure != nil {
			attrs = evidence.ReadPressure(procDir).Since(p.pressure)
		}
		if pid := int(p.sandbox.firstPID.Load()); pid != 0 {
			attrs = append(attrs, evidence.Cgroup(procDir, cgroupDir, pid)...)
		}
		return attrs
	})
}
