package host

import (
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is how many clock ticks a second has in what the kernel reports
// (USER_HZ).
const ticksPerSecond = 100

// Uptime returns how long the host has been up, 0 if that is not known. Nobody can set
// this clock.
func Uptime() time.Duration {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return 0
	}
	return time.Duration(since.Nano())
}

// Started returns when the process started, by the host's present clock.
func (p Process) Started() time.Time {
	up := Uptime()
	if up == 0 {
		return time.Time{}
	}
	return time.Now().Add(-up).Add(time.Duration(p.Start) * (time.Second / ticksPerSecond))
}
