package forwarder

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// budget is the processor time for a sandbox's spans, whatever their shape: a share of one core
// in the long run, plus a burst. Work is measured once it is done, so one read or one span may
// overdraw the budget.
type budget struct {
	share float64 // of one core
	burst time.Duration

	mu   sync.Mutex
	left time.Duration
	at   time.Time // when left was updated
}

func newBudget(percent int, burst time.Duration, now time.Time) *budget {
	return &budget{share: float64(percent) / 100, burst: burst, left: burst, at: now}
}

// spend takes used off the budget, which never falls below -burst.
func (b *budget) spend(used time.Duration, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(now)
	b.left = max(b.left-used, -b.burst)
}

// overdrawn reports whether nothing is left.
func (b *budget) overdrawn(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(now)
	return b.left <= 0
}

func (b *budget) refill(now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.left = min(b.left+time.Duration(float64(passed)*b.share), b.burst)
		b.at = now
	}
}

// slice bounds the charge to a goroutine that changed its thread: its time slice of the Go
// scheduler was over, or it waited.
const slice = 10 * time.Millisecond

// meter measures the processor time of a goroutine between start and stop. It reads the
// thread's clock, because other processes may use the processor meanwhile. The goroutine must
// not wait in between: it could be charged for others on its thread.
type meter struct {
	thread int
	cpu    time.Duration
	wall   time.Time // zero: not started
}

func (m *meter) start(now time.Time) {
	*m = meter{thread: unix.Gettid(), cpu: threadTime(), wall: now}
}

// stop returns the time used since start, 0 without a start.
func (m *meter) stop(now time.Time) time.Duration {
	if m.wall.IsZero() {
		return 0
	}
	wall, cpu := now.Sub(m.wall), threadTime()-m.cpu
	m.wall = time.Time{}
	if unix.Gettid() != m.thread {
		return min(wall, slice)
	}
	return min(max(cpu, 0), wall)
}

func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
