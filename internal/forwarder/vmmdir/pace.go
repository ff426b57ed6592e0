package vmmdir

import (
	"sync"
	"time"
)

// Pace says how often to look for what a VMM makes. Looking costs some system calls,
// where an inotify instance would be one of 128 that the kernel gives all processes of
// a user together. While something is expected one looks often at first, and then the
// less often the longer it takes; afterwards seldom. It is safe for concurrent use.
type Pace struct {
	// Idle is the time between two looks when nothing is expected; 10 s.
	Idle time.Duration

	mu    sync.Mutex
	since time.Time // of what is expected; zero: nothing is
	until time.Time // zero: without end
	news  chan struct{}
}

const (
	idle = 10 * time.Second
	// slowest is the time between two looks when something is.
	slowest = 100 * time.Millisecond
	// share of the time that one has waited already is how late one may be.
	share = 500
)

// NewPace returns a pace for something that is expected within the time given.
func NewPace(within time.Duration) *Pace {
	p := &Pace{Idle: idle, news: make(chan struct{})}
	p.Expect(within)
	return p
}

// Expect says that something is to appear from now on, within the time given; 0: until
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

// Quicken says that what is expected is near.
func (p *Pace) Quicken() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.since.IsZero() {
		p.since = time.Now()
	}
}

// Settle says that nothing is expected any more. Everybody looks once more.
func (p *Pace) Settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Time{}
	p.tell()
}

// Next returns when to look next, at the soonest after least, and a channel that is
// closed when that has changed.
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
