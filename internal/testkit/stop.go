package testkit

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Stop stops a process and waits until none of its threads goes on: the signal has only
// been sent when kill returns. Whoever watches the process may have ended it by then.
func Stop(t testing.TB, pid int) {
	t.Helper()
	Check(t, unix.Kill(pid, unix.SIGSTOP))
	Until(t, fmt.Sprintf("process %d stops", pid), func() bool { return !goesOn(pid) })
}

// goesOn reports whether a thread of a process can still do something.
func goesOn(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, file := range files {
		if fields := stat(file); len(fields) > 0 && !bytes.ContainsAny(fields[0], "TtZX") {
			return true
		}
	}
	return false
}
