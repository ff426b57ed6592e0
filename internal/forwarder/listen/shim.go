package listen

import (
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

// Shim is a sandbox's inner shim, from which its VMM descends. It is safe for
// concurrent use.
type Shim struct {
	// Find returns the shim's process, the zero Process while there is none. It is asked
	// until there is one.
	Find func() host.Process
	// Proc is /proc unless set; it must be of the host's process namespace.
	Proc host.Proc

	mu    sync.Mutex
	found host.Process
	next  time.Time // to ask Find
	pause time.Duration
}

// Asking for the shim means looking at all processes of the host, the more seldom the
// longer it is in vain.
const (
	firstFind = 50 * time.Millisecond
	lastFind  = 10 * time.Second
)

func (s *Shim) proc() host.Proc {
	if s.Proc == "" {
		return "/proc"
	}
	return s.Proc
}

func (s *Shim) find() host.Process {
	if s == nil {
		return host.Process{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.found.PID == 0 && !now.Before(s.next) {
		s.found = s.Find()
		s.pause = max(firstFind, min(2*s.pause, lastFind))
		s.next = now.Add(s.pause)
	}
	return s.found
}

// descendants returns the processes that the shim has started, and theirs.
func (s *Shim) descendants() []host.Process {
	shim := s.find()
	if shim.PID == 0 {
		return nil
	}
	return s.proc().Descendants(shim)
}

// Owns reports whether the shim has started a process that acts as the user and nobody
// else, and that is not root: its VMM, if it runs that as a user of its own.
func (s *Shim) Owns(uid uint32) bool {
	if uid == 0 {
		return false
	}
	for _, p := range s.descendants() {
		if p.RunsAs(uid) {
			return true
		}
	}
	return false
}
