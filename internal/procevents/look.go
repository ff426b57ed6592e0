package procevents

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// files are those that a process sees: its root directory, and its mount namespace.
type files struct{ root, mounts host.File }

// filesOf returns which files a process sees; false if it is gone, or has ended.
func filesOf(proc host.Proc, pid int) (p files, ok bool) {
	var err error
	if p.mounts, err = host.FileOf(path(proc, pid, "ns/mnt")); err != nil {
		return p, false
	}
	p.root, err = host.FileOf(path(proc, pid, "root"))
	return p, err == nil
}

// described is what a process executes.
type described struct {
	program string
	role    Role
	ociCommand
}

// describe looks at what a process executes. Of one that has ended only the name is left.
func describe(proc host.Proc, pid int) (d described) {
	comm, err := os.ReadFile(path(proc, pid, "comm"))
	if err != nil {
		return d
	}
	name := strings.TrimSuffix(string(comm), "\n")
	exe, _ := os.Readlink(path(proc, pid, "exe"))
	var args [][]byte
	// A long name is cut, and copies of programs have none.
	if d.program = programName(name, exe, nil); d.program != name || len(name) >= maxComm || roleOf(d.program) == OCIRuntime {
		args = proc.Args(pid)
		d.program = programName(name, exe, args)
	}
	if d.role = roleOf(d.program); d.role == OCIRuntime {
		d.ociCommand = parseOCI(args)
	}
	return d
}

// clock returns the present moment on CLOCK_MONOTONIC, and how far CLOCK_BOOTTIME is ahead
// of that.
func clock() (now, asleep time.Duration) {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	now = time.Duration(t.Nano())
	return now, max(0, host.Uptime()-now)
}

// Now returns the present moment on the clock of Report.At.
func Now() time.Duration {
	now, _ := clock()
	return now
}

func path(proc host.Proc, pid int, elem string) string {
	return string(proc) + "/" + strconv.Itoa(pid) + "/" + elem
}
