package vmmdir

import (
	"sync"
	"time"
)

// Pace says how often to look for files that a VMM makes. Polling costs some system
// calls; inotify would take one of the 128 instances that the kernel allows a user.
// While a file is expected the first looks come quickly and later ones more slowly;
// otherwise looks are rare. Pace is safe for concurrent use.
type Pace struct {
	// Idle is the pause between looks while nothing is expected. Default 10 s.
	Idle time.Duration

	mu    sync.Mutex
	since time.Time // since when something is expected; zero: nothing is
	until time.Time // zero: without end
	news  chan struct{}
}

const (
	idle = 10 * time.Second
	// slowest is the longest pause while something is expected.
	slowest = 100 * time.Millisecond
	// A pause is 1/share of the time waited so far.
	share = 500
)

// NewPace returns a Pace that expects something within the given time.
func NewPace(within time.Duration) *Pace {
	p := &Pace{Idle: idle, news: make(chan struct{})}
	p.Expect(within)
	return p
}

// Expect says that something is expected within the given time, from now on; 0: until
// Settle.
func (p *Pace) Expect(within time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.until = time.Now(), time.Time{}
	if within > 0 {
		p.until = p.since.Add(within)
	}
	p.tell()
}

// Quicken says that what is expected is near: looks become frequent again.
func (p *Pace) Quicken() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.since.IsZero() {
		p.since = time.Now()
	}
}

// Settle says that nothing is expected any more. Every waiter looks once more.
func (p *Pace) Settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Time{}
	p.tell()
}

// Next returns the pause until the next look, at least least, and a channel that is
// closed when the pace changes.
func (p *Pace) Next(least time.Duration) (time.Duration, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.until.IsZero() && now.After(p.until) {
		p.since = time.Time{}
	}
	if p.since.IsZero() {
		return p.Idle, p.news
	}
	return max(least, min(now.Sub(p.since)/share, slowest)), p.news
}

func (p *Pace) tell() {
	close(p.news)
	p.news = make(chan struct{})
}
