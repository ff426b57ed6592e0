package listen

import (
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

// Shim is a sandbox's inner shim, from which its VMM descends. It is safe for
// concurrent use.
type Shim struct {
	// Find returns the shim's process, the zero Process while there is none. It is
	// called until it returns one.
	Find func() host.Process
	// Proc is the proc file system of the host's process namespace. Default: /proc.
	Proc host.Proc

	mu    sync.Mutex
	found host.Process
	next  time.Time // when to call Find again
	pause time.Duration
}

// Find looks at all processes of the host, so the pause grows with each call that
// finds nothing.
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

// descendants returns all processes below the shim.
func (s *Shim) descendants() []host.Process {
	shim := s.find()
	if shim.PID == 0 {
		return nil
	}
	return s.proc().Descendants(shim)
}

// Owns reports whether a descendant of the shim runs as uid alone, and uid is not root:
// that is the VMM, if the shim runs it as a separate user.
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
