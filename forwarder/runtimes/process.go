package runtimes

import (
	"os"
	"slices"
	"syscall"
)

// maxProcesses bounds what a relay may name; a runtime is one process.
const maxProcesses = 8

// process is a runtime's. Its handle is of the process that had the pid when it was
// named, not of one that gets it later.
type process struct {
	pid    int
	handle *os.Process
}

// processesOf returns those of the pids that are processes.
func processesOf(pids []int) (all []process) {
	for _, pid := range slices.Compact(slices.Sorted(slices.Values(pids))) {
		if pid <= 1 || len(all) == maxProcesses {
			continue
		}
		if h, err := os.FindProcess(pid); err == nil {
			all = append(all, process{pid: pid, handle: h})
		}
	}
	return all
}

// alive tells whether the process is still there, which on Linux the handle knows
// whatever becomes of its pid.
func (p process) alive() bool { return p.handle.Signal(syscall.Signal(0)) == nil }

// release lets go of the handles.
func release(all []process) {
	for _, p := range all {
		_ = p.handle.Release()
	}
}
