package guard

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// port is the host's VSOCK port where agents connect: the guard accepts, and hands each
// connection to the relay that has claimed its CID.
type port struct {
	fd      int  // 0: not open
	opening bool // the port is open, or is about to be
	waiting []*visitor
	told    string // what hindered it last
}

// visitor is a connection of a VM that nobody has claimed.
type visitor struct {
	fd   int
	cid  uint32
	late *time.Timer
}

const (
	// maxWaiting bounds the connections that wait for a claim, maxPlacing those of one
	// VM; an agent has one. What is beyond the first goes to any relay at once, what is
	// beyond the second is closed.
	maxWaiting = 64
	maxPlacing = 4
	// firstGuest is the lowest CID of a VM; those below are the hypervisor's and the
	// host's own.
	firstGuest = 3
)

// openPort opens the port, once a relay is there that wants connections, and tries again
// while another program has it.
func (s *server) openPort() {
	if s.opts.VSOCK == nil {
		return
	}
	s.port.opening = true
	var err error
	if s.port.fd = s.opts.Port; s.port.fd == 0 {
		s.port.fd, err = s.opts.VSOCK()
	} else {
		err = unix.SetNonblock(s.port.fd, true)
	}
	s.opts.Port = 0
	if err == nil {
		err = s.watch(s.port.fd, unix.EPOLLIN, func(uint32) { s.visit() })
	}
	if err == nil {
		s.port.told = ""
		return
	}
	s.port.fd = 0
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("%w: until another program lets go of the port, no spans come from QEMU's VMs", err)
	}
	if err.Error() != s.port.told {
		s.port.told = err.Error()
		s.opts.Logf("guard: %v", err)
	}
	if !errors.Is(err, unix.EAFNOSUPPORT) {
		s.after(s.opts.second, s.openPort)
	}
}

// visit accepts connections of VMs.
func (s *server) visit() {
	for {
		fd, from, err := unix.Accept4(s.port.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case err != nil && !errors.Is(err, unix.ECONNABORTED):
			s.acceptLater(s.port.fd, s.visit)
			return
		case err == nil:
			s.handOn(fd, s.cid(from))
		}
	}
}

func (s *server) cid(from unix.Sockaddr) uint32 {
	if s.opts.CID != nil {
		return s.opts.CID(from)
	}
	if vm, ok := from.(*unix.SockaddrVM); ok {
		return vm.CID
	}
	return 0
}

// handOn brings a connection to its relay, or has it wait for a claim.
func (s *server) handOn(fd int, cid uint32) {
	if r := s.claimant(cid); r != nil && s.handConnection(r, fd, cid) {
		return
	}
	of := 0
	for _, v := range s.port.waiting {
		if v.cid == cid {
			of++
		}
	}
	switch {
	case cid < firstGuest, of >= maxPlacing:
		unix.Close(fd)
	case len(s.port.waiting) >= maxWaiting:
		s.stray(fd, cid)
	default:
		v := &visitor{fd: fd, cid: cid}
		v.late = s.after(s.opts.Hold, func() {
			if s.dismiss(v) {
				s.stray(v.fd, v.cid)
			}
		})
		s.port.waiting = append(s.port.waiting, v)
	}
}

// dismiss ends the waiting of a visitor, and reports whether it was still waiting.
func (s *server) dismiss(v *visitor) bool {
	i := slices.Index(s.port.waiting, v)
	if i < 0 {
		return false
	}
	v.late.Stop()
	s.port.waiting = slices.Delete(s.port.waiting, i, i+1)
	return true
}

func (s *server) claimant(cid uint32) *relay {
	for _, r := range s.relays {
		if slices.Contains(r.claims, cid) {
			return r
		}
	}
	return nil
}

// claim makes a VM a relay's: the last relay that claims a VM has it. The CID 0 stands for
// all VMs that nobody claims.
func (s *server) claim(r *relay, cid uint32) {
	if cid == 0 {
		if r.strays = true; s.port.fd == 0 && !s.port.opening {
			s.openPort()
		}
		return
	}
	if old := s.claimant(cid); old != nil {
		old.claims = slices.DeleteFunc(old.claims, func(c uint32) bool { return c == cid })
	}
	if len(r.claims) >= maxClaims {
		return
	}
	r.claims = append(r.claims, cid)
	for _, v := range slices.Clone(s.port.waiting) {
		if v.cid == cid && s.dismiss(v) {
			s.handOn(v.fd, v.cid)
		}
	}
}

// unclaim forgets the claims of a relay without a link; one that lives claims again.
func (s *server) unclaim(r *relay) { r.claims, r.strays = nil, false }

// handConnection gives a connection away.
func (s *server) handConnection(r *relay, fd int, cid uint32) bool {
	if r.link == nil || len(r.link.out) > 0 {
		return false
	}
	if sendPacket(r.link.fd, message{Type: typeConnection, CID: cid}, fd) != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// stray gives a connection that nobody has claimed to any relay that takes some.
func (s *server) stray(fd int, cid uint32) {
	for _, r := range s.relays {
		if r.strays && s.handConnection(r, fd, cid) {
			return
		}
	}
	unix.Close(fd)
}

// closePort closes the port for good, when the loop is over.
func (s *server) closePort() {
	for _, v := range slices.Clone(s.port.waiting) {
		if s.dismiss(v) {
			unix.Close(v.fd)
		}
	}
	if s.port.fd > 0 {
		s.loop.close(s.port.fd)
		s.port.fd = 0
	}
}
