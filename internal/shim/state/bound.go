package state

import (
	"os"
	"time"
)

const (
	// DiskTime is how long a file system may take to answer before the work goes on
	// without it: nothing that containerd waits for waits for a disk.
	DiskTime = 250 * time.Millisecond
	// CloseTime bounds each step at a process's end.
	CloseTime = 500 * time.Millisecond
)

// DirAnswers reports whether the file system of the state directory answers. Without it
// there is no relay.
func DirAnswers(dir string) bool {
	return Within(DiskTime, func() { _, _ = os.Lstat(RelaysDir(dir)) })
}

// Within runs f and reports whether it ended in time. If not, f goes on by itself:
// nothing interrupts a call of a file system that hangs.
func Within(d time.Duration, f func()) bool {
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
