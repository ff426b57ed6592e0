package shim

import (
	"os"
	"time"
)

const (
	// diskTime is how long a file system may take to answer before the work goes on
	// without it: nothing that containerd waits for waits for a disk.
	diskTime = 250 * time.Millisecond
	// closeTime bounds each step at a process's end.
	closeTime = 500 * time.Millisecond
)

// stateAnswers reports whether the file system of the state directory answers. Without it
// there is no relay.
func stateAnswers(dir string) bool {
	return within(diskTime, func() { _, _ = os.Lstat(relaysDir(dir)) })
}

// within runs f and reports whether it ended in time. If not, f goes on by itself:
// nothing interrupts a call of a file system that hangs.
func within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
