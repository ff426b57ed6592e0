package testkit

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Forked reports whether a process is a copy that its parent has just made of itself: it has
// its parent's arguments until it executes a program. One that starts a process would look
// like two, and so would one whose Go runtime asks the kernel for pidfds, by a copy that
// ends at once (os.checkPidfd).
func Forked(pid int) bool {
	fields := stat(fmt.Sprintf("/proc/%d/stat", pid))
	const ppid, flags = 4 - 3, 9 - 3
	if len(fields) <= flags {
		return false
	}
	const notExecuted = 0x40 // PF_FORKNOEXEC of Linux, include/linux/sched.h
	if f, err := strconv.ParseUint(string(fields[flags]), 10, 64); err != nil || f&notExecuted == 0 {
		return false
	}
	parent, err := strconv.Atoi(string(fields[ppid]))
	return err == nil && same(parent, pid) // else its parent has ended, and it is what there is
}

// same reports whether two processes have the same arguments.
func same(a, b int) bool {
	return unix.Kill(a, 0) == nil && bytes.Equal(line(a), line(b))
}

func line(pid int) []byte {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return line
}
