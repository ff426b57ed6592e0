package host

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a process has used since it began.
type Usage struct {
	// Start is the process's, by which two looks are known to be of the same; 0: it is gone.
	Start uint64
	// CPU is the processor time of all its threads, without its children's.
	CPU time.Duration
	// MajorFaults are pages that had to be read from disk, including those of children that
	// it has waited for.
	MajorFaults int64
}

// Usage looks at a process. The error is ErrGone if it is gone.
func (p Proc) Usage(of Process) (u Usage, err error) {
	var room [maxStat]byte
	fields, err := statFields(room[:], p.path(of.PID, "stat"))
	if err != nil {
		return u, gone(err)
	}
	const majflt, cmajflt, startTime = 12 - 3, 13 - 3, 22 - 3 // from the third field on
	start, err := strconv.ParseUint(string(nthField(fields, startTime)), 10, 64)
	if err != nil || start != of.Start {
		return u, ErrGone
	}
	own, _ := strconv.ParseInt(string(nthField(fields, majflt)), 10, 64)
	children, _ := strconv.ParseInt(string(nthField(fields, cmajflt)), 10, 64)
	return Usage{Start: start, CPU: CPUTime(of.PID), MajorFaults: own + children}, nil
}

// CPUTime returns the processor time of a process, also of one that has ended and was not
// waited for; 0 if it is gone. The clock is that of clock_getcpuclockid(3): the kernel has
// it in the number of the clock (Linux, include/linux/posix-timers.h).
func CPUTime(pid int) time.Duration {
	const scheduled = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
