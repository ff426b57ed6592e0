package interpose

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/loglimit"
)

// socketPath is one path where the VMM may have its socket.
type socketPath struct {
	*Interposer
	path   string
	spot   *listen.Spot
	report loglimit.Reporter
	there  bool      // whether the socket's directory exists
	failed time.Time // when taking the place last failed
	seat   *seat     // nil: not taken
	skip   mark      // a socket that must not be replaced
}

// failurePause is the pause after a failed attempt to take a place: each attempt costs
// a thread.
const failurePause = 500 * time.Millisecond

// mark tells a socket from a later one with the same identity.
type mark struct {
	id      vmmdir.ID
	changed unix.Timespec
}

// tend takes the place if there is a socket, and leaves it if the name is no longer
// ours. It reports whether the place is taken.
func (p *socketPath) tend() bool {
	if p.seat != nil {
		switch {
		case p.seat.refused.Load():
			// The VMM is dead. Its clients must see that.
			path := p.seat.path
			p.leave()
			if id, st, err := vmmdir.Identify(path); err == nil {
				p.skip = mark{id, st.Ctim}
			}
		case p.seat.present():
			return true
		default:
			p.leave()
		}
	}
	var path string
	if path, p.there = p.spot.Find(p.opts.Owns); !p.there {
		return false
	}
	id, st, err := vmmdir.Identify(path)
	if err != nil {
		return false
	}
	if p.skip == (mark{id, st.Ctim}) || time.Since(p.failed) < failurePause {
		return false
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		p.report.Tell(fmt.Errorf("take the place of %s: it is no socket", path))
		return false
	}
	s, err := p.take(path)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, vmmdir.ErrNone):
		return false
	case errors.Is(err, errTaken):
		p.skip = mark{id, st.Ctim} // finding out again would disturb its VMM
		fallthrough
	case err != nil:
		p.failed = time.Now()
		p.report.Tell(fmt.Errorf("take the place of %s: %w; requests to the agent are not traced", path, err))
		return false
	}
	p.report.Tell(nil)
	p.sit(s)
	return true
}

// sit serves the clients that connect to the seat.
func (p *socketPath) sit(s *seat) {
	p.seat = s
	p.opts.Taken(s.kept())
	p.seats.Go(func() {
		s.accept(p.Interposer, &p.report)
		p.opts.Left(s.kept())
	})
}

// take retries while another process or the VMM is changing the socket.
func (p *socketPath) take(path string) (s *seat, err error) {
	for range 20 {
		s, err = takeSeat(path, &p.opts)
		if !errors.Is(err, host.ErrLocked) && !errors.Is(err, errChanged) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return s, err
}

// leave gives the place back; clients that connected meanwhile are served.
func (p *socketPath) leave() {
	if p.seat != nil {
		p.report.Tell(p.seat.giveBack())
		p.seat.end()
		p.seat = nil
	}
}
