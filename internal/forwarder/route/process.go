package route

import (
	"os"
	"slices"
	"syscall"

	"github.com/shimtrace/shimtrace/internal/host"
)

// maxProcesses bounds what a relay may name; a runtime is one process.
const maxProcesses = 8

// process is a runtime's process. Its handle stays with it, even if another process
// gets its pid.
type process struct {
	pid    int
	handle *os.Process
}

// processesOf returns those of the named processes that exist. started has their
// starts, in the same order; older relays send none.
func processesOf(proc host.Proc, pids []int, started []uint64) (all []process) {
	for i, pid := range pids {
		if pid <= 1 || len(all) == maxProcesses || slices.ContainsFunc(all, func(o process) bool { return o.pid == pid }) {
			continue
		}
		h, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		// In this order, the handle is of the process with that start.
		if i < len(started) && started[i] != 0 {
			if start, err := proc.Start(pid); err != nil || start != started[i] {
				_ = h.Release()
				continue
			}
		}
		all = append(all, process{pid: pid, handle: h})
	}
	return all
}

// alive reports whether the process still runs. On Linux the handle is a pidfd, so a
// reused pid does not matter.
func (p process) alive() bool { return p.handle.Signal(syscall.Signal(0)) == nil }

// release releases the processes' handles.
func release(all []process) {
	for _, p := range all {
		_ = p.handle.Release()
	}
}
