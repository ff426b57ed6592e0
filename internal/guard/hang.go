package guard

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// watch is what the guard remembers of an entry between two looks.
type watch struct {
	moved uint64 // as the memory says, or messages from the relay
	stuck int    // looks at which bytes waited and nothing had moved
}

// settleTicks is for how many looks nothing was said before memory is given back.
const settleTicks = 3

// maxStuck is for how many looks, one a second, a relay may leave bytes waiting.
const maxStuck = 5

const proc = host.Proc("/proc")

// tick looks at all relays, every second while there are any.
func (s *server) tick() {
	if s.ticking {
		return
	}
	s.ticking, s.ticked = true, time.Now()
	s.after(s.opts.second, s.look)
}

func (s *server) look() {
	s.ticking = false
	now := time.Now()
	// If this process was stopped, or the host asleep, nothing is known of what others
	// have done meanwhile.
	fresh := now.Sub(s.ticked) < 3*s.opts.second
	for _, r := range s.relays {
		if r.pidfd < 0 || !r.complete || s.opts.Moved == nil {
			continue
		}
		stuck, waiting := 0, false
		for _, e := range r.entries {
			now := fresh && pending(e)
			if waiting = waiting || now; !now || s.moved(r, e) {
				e.watch.stuck = 0
			} else {
				e.watch.stuck++
			}
			stuck = max(stuck, e.watch.stuck)
		}
		if waiting && s.hangs(r, stuck) {
			s.logf(r.who, "%v does not move: it is replaced", r)
			r.cause = Hung
			_ = unix.PidfdSendSignal(r.pidfd, unix.SIGKILL, nil, 0)
		}
	}
	if s.quiet++; s.heard && s.quiet > settleTicks {
		s.heard = false
		if s.opts.Settle != nil {
			go s.opts.Settle()
		}
	}
	if len(s.relays) > 0 {
		s.tick()
	}
}

// hangs reports whether a relay for which something waits is to be replaced: it is stopped
// (not by a debugger), or has not moved for a while, and not for want of a processor.
func (s *server) hangs(r *relay, stuck int) bool {
	if proc.State(r.pid) == 'T' {
		return true
	}
	if stuck < maxStuck {
		return false
	}
	before, now := r.threads, proc.Threads(r.pid)
	r.threads = now
	return stuck > maxStuck && !host.Starved(before, now, s.opts.second)
}

// moved reports whether something has happened to an entry since the last look.
func (s *server) moved(r *relay, e *entry) bool {
	moved := r.heard
	if e.kind != Listener {
		var err error
		if moved, err = s.opts.Moved(e.files[len(e.files)-1]); err != nil {
			return true
		}
	}
	was := e.watch.moved
	e.watch.moved = moved
	return moved != was
}

// pending reports whether there is something that the relay could do with an entry now.
func pending(e *entry) bool {
	switch e.kind {
	case Listener:
		return poll(e.files[0])&unix.POLLIN != 0
	case Stream:
		return unread(e.files[0])
	case Relayed:
		a, b := e.files[0], e.files[1]
		return unread(a) && writable(b) || unread(b) && writable(a)
	}
	return false
}

func poll(fd int) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
	_, _ = unix.Poll(fds, 0)
	return fds[0].Revents
}

func writable(fd int) bool { return poll(fd)&unix.POLLOUT != 0 }

// unread reports whether bytes wait at a socket. The end of a connection is not a byte.
func unread(fd int) bool {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return err == nil && n > 0
}
