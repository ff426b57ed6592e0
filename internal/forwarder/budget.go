package forwarder

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// budget is the processor time that a sandbox's spans may take, whatever shape they
// have: a share of one core in the long run, and some more at once. Work is measured
// after it was done, so the budget may be overdrawn, by one read or one span.
type budget struct {
	share float64 // of one core
	burst time.Duration

	mu   sync.Mutex
	left time.Duration
	at   time.Time // when left was right
}

func newBudget(percent int, burst time.Duration, now time.Time) *budget {
	return &budget{share: float64(percent) / 100, burst: burst, left: burst, at: now}
}

// spend takes what was used. A sandbox is never further behind than burst.
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

// slice is what a goroutine that changed its thread is charged at most: that happens
// when its time slice of the Go scheduler is over, or when it waited.
const slice = 10 * time.Millisecond

// meter measures the processor time that a goroutine uses between start and stop: its
// thread's, since other processes may have the processor meanwhile. The goroutine must
// not wait in between, or it may be charged what others did on its thread.
type meter struct {
	thread int
	cpu    time.Duration
	wall   time.Time // zero: not started
}

func (m *meter) start(now time.Time) {
	*m = meter{thread: unix.Gettid(), cpu: threadTime(), wall: now}
}

// stop returns the time used since start, 0 if it was not called.
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
