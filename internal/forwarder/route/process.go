package route

import (
	"os"
	"slices"
	"syscall"

	"github.com/shimtrace/shimtrace/internal/host"
)

// maxProcesses bounds what a relay may name; a runtime is one process.
const maxProcesses = 8

// process is a runtime's. Its handle is of the process that the relay has named, not
// of one that gets its pid later.
type process struct {
	pid    int
	handle *os.Process
}

// processesOf returns those of the processes that a relay has named that are there.
// started has their starts, in the same order; relays of former versions say none.
func (p procFS) processesOf(pids []int, started []uint64) (all []process) {
	for i, pid := range pids {
		if pid <= 1 || len(all) == maxProcesses || slices.ContainsFunc(all, func(o process) bool { return o.pid == pid }) {
			continue
		}
		h, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		// In this order: then the handle is of the process that started so.
		if i < len(started) && started[i] != 0 {
			if start, err := host.Proc(p).Start(pid); err != nil || start != started[i] {
				_ = h.Release()
				continue
			}
		}
		all = append(all, process{pid: pid, handle: h})
	}
	return all
}

// alive reports whether the process is still there, which on Linux the handle knows
// whatever becomes of its pid.
func (p process) alive() bool { return p.handle.Signal(syscall.Signal(0)) == nil }

// release lets go of the handles.
func release(all []process) {
	for _, p := range all {
		_ = p.handle.Release()
	}
}
