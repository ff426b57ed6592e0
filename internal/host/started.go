package host

import (
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is how many clock ticks the kernel tells a second to have, whatever it
// has (USER_HZ).
const ticksPerSecond = 100

// Started returns when the process started, by the host's clock as it is now.
func (p Process) Started() time.Time {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}
	}
	boot := time.Now().Add(-time.Duration(since.Nano()))
	return boot.Add(time.Duration(p.Start) * (time.Second / ticksPerSecond))
}
