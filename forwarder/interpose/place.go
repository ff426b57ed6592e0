package interpose

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/forwarder/vmmdir"
)

// place is one path where the VMM may have its socket.
type place struct {
	*Interposer
	path   string
	report vmmdir.Reporter
	seat   *seat // nil: not taken
	skip   mark  // of a socket that is not to be taken
}

// mark tells a socket from a later one with the same identity.
type mark struct {
	id      vmmdir.ID
	changed unix.Timespec
}

// tend takes the place if there is a socket, and leaves it if that is ours no
// more. It reports whether the place is taken.
func (p *place) tend() bool {
	if p.seat != nil {
		switch {
		case p.seat.refused.Load():
			// The VMM is dead. Its clients are to see that.
			p.leave()
			if id, st, err := vmmdir.Identify(p.path); err == nil {
				p.skip = mark{id, st.Ctim}
			}
		case p.seat.present():
			return true
		default:
			p.leave()
		}
	}
	id, st, err := vmmdir.Identify(p.path)
	if err != nil || p.skip == (mark{id, st.Ctim}) {
		return false
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		p.report.Tell(fmt.Errorf("take the place of %s: it is no socket", p.path))
		return false
	}
	s, err := p.take()
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, vmmdir.ErrNone):
		return false
	case errors.Is(err, errTaken):
		p.skip = mark{id, st.Ctim} // to find that out disturbs its VMM
		fallthrough
	case err != nil:
		p.report.Tell(fmt.Errorf("take the place of %s: %w; requests to the agent are not traced", p.path, err))
		return false
	}
	p.report.Tell(nil)
	p.seat = s
	p.seats.Go(func() { s.accept(p.Interposer, &p.report) })
	return true
}

// take retries what other processes may be about to finish.
func (p *place) take() (s *seat, err error) {
	for range 20 {
		s, err = takeSeat(p.path, &p.opts)
		if !errors.Is(err, vmmdir.ErrBusy) && !errors.Is(err, errChanged) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return s, err
}

// leave gives the place back, and serves who has come meanwhile.
func (p *place) leave() {
	if p.seat != nil {
		p.report.Tell(p.seat.giveBack())
		p.seat.end()
		p.seat = nil
	}
}
