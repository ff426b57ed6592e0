package route

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/shimtrace/shimtrace/internal/host"
)

// socket is the other end of a connection to the endpoint.
type socket struct {
	inode uint64
	uid   uint32
}

// errNoSocket: no process of this network namespace has such a socket.
var errNoSocket = errors.New("no process has it")

// sockets finds out who has the connections to the endpoint.
type sockets struct {
	proc host.Proc
	// diagnose asks the kernel for one socket, as diagnoser.ask does.
	diagnose func(from, to netip.AddrPort) (socket, error)
	// warn is told when diagnose fails.
	warn func(error)
}

// errNoDiag explains slow lookups. The kernel answers ENOENT for a missing module as it
// does for a missing socket (Linux, net/core/sock_diag.c and net/ipv4/inet_diag.c).
var errNoDiag = errors.New("the kernel does not tell of single TCP sockets: its modules inet_diag and tcp_diag are neither loaded nor built in. " +
	"Who posts is looked for in /proc/net/tcp instead, which takes longer the more connections the host has; \"modprobe tcp_diag\" mends that")

// find returns the sockets with these local addresses that are connected to to, where a
// process of this host listens. The results are in the order of the addresses;
// errNoSocket for those that have been closed.
func (s *sockets) find(all []netip.AddrPort, to netip.AddrPort) []found {
	to = unmap(to)
	results := make([]found, len(all))
	var unknown []int
	for i, from := range all {
		r := &results[i]
		r.socket, r.err = s.diagnose(unmap(from), to)
		// A listener there is certain to exist.
		if errors.Is(r.err, errNoSocket) && !s.diagnoses(to) {
			r.err = errNoDiag
		}
		if r.err != nil && !errors.Is(r.err, errNoSocket) {
			unknown = append(unknown, i)
		}
	}
	if len(unknown) == 0 {
		return results
	}
	s.warn(results[unknown[0]].err)
	for range looksAtList {
		wanted := make(map[netip.AddrPort]int, len(unknown))
		for _, i := range unknown {
			if results[i].err != nil {
				results[i].err = errNoSocket
				wanted[unmap(all[i])] = i
			}
		}
		if len(wanted) == 0 {
			break
		}
		if err := s.listed(to, func(from netip.AddrPort, got socket) {
			if i, ok := wanted[from]; ok {
				results[i] = found{socket: got}
			}
		}); err != nil {
			for _, i := range wanted {
				if results[i].err != nil {
					results[i].err = fmt.Errorf("who posts is found neither by sock_diag nor in /proc/net: %w", err)
				}
			}
		}
	}
	return results
}

// looksAtList is how often the list is read for a socket: while others come and go, the
// kernel may leave one out (Linux, net/ipv4/tcp_ipv4.c, tcp_seek_last_pos).
const looksAtList = 2

// found is a result of find.
type found struct {
	socket
	err error
}

// diagnoses reports whether the kernel finds the socket that listens at an address.
func (s *sockets) diagnoses(at netip.AddrPort) bool {
	nobody := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if at.Addr().Is6() {
		nobody = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	_, err := s.diagnose(at, nobody)
	return err == nil
}

// listed calls tell for each socket connected to the address, from the list of all
// sockets: for kernels without sock_diag. Closed sockets that linger for the protocol's
// sake have no inode and are left out.
func (s *sockets) listed(to netip.AddrPort, tell func(from netip.AddrPort, got socket)) error {
	return s.proc.TCP(to.Port(), func(t host.TCPSocket) {
		if t.Remote == to && t.Inode != 0 {
			tell(t.Local, socket{inode: t.Inode, uid: t.UID})
		}
	})
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
