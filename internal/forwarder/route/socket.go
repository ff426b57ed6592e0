package route

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/shimtrace/shimtrace/internal/host"
)

// procFS is a proc file system.
type procFS string

// socket is the other end of a connection to the endpoint.
type socket struct {
	inode uint64
	uid   uint32
}

// errNoSocket: no process of this network namespace has such a socket any more.
var errNoSocket = errors.New("no process has it")

// sockets finds out whose connections to the endpoint are.
type sockets struct {
	proc procFS
	// diagnose asks the kernel for one socket, as diagnoser.ask does.
	diagnose func(from, to netip.AddrPort) (socket, error)
	// warn is told when that does not work.
	warn func(error)
}

// errNoDiag is why looking takes long. The kernel answers ENOENT for a module that is
// not there as it does for a socket (Linux, net/core/sock_diag.c and net/ipv4/inet_diag.c).
var errNoDiag = errors.New("the kernel does not tell of single TCP sockets: its modules inet_diag and tcp_diag are neither loaded nor built in. " +
	"Who posts is looked for in /proc/net/tcp instead, which takes longer the more connections the host has; \"modprobe tcp_diag\" mends that")

// find returns the sockets whose own addresses are these, and which are connected to an
// address of this host, where a process listens: errNoSocket for those that have been
// closed. The results are in the order of the addresses.
func (s *sockets) find(all []netip.AddrPort, to netip.AddrPort) []found {
	to = unmap(to)
	results := make([]found, len(all))
	var unknown []int
	for i, from := range all {
		r := &results[i]
		r.socket, r.err = s.diagnose(unmap(from), to)
		// That somebody listens there is certain.
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
		if err := s.proc.listed(to, func(from netip.AddrPort, got socket) {
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

// looksAtList is how often the list is looked at for a socket: while others come and go,
// the kernel may leave one out (Linux, net/ipv4/tcp_ipv4.c, tcp_seek_last_pos).
const looksAtList = 2

// found is what find has found.
type found struct {
	socket
	err error
}

// diagnoses reports whether the kernel tells of the socket that listens at an address.
func (s *sockets) diagnoses(at netip.AddrPort) bool {
	nobody := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	if at.Addr().Is6() {
		nobody = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	_, err := s.diagnose(at, nobody)
	return err == nil
}

// listed tells of all sockets that are connected to the address, from the lists of all:
// for kernels that do not tell otherwise. Those that have been closed, and linger for
// the protocol's sake, have no inode.
func (p procFS) listed(to netip.AddrPort, tell func(from netip.AddrPort, s socket)) error {
	return host.Proc(p).TCP(to.Port(), func(s host.TCPSocket) {
		if s.Remote == to && s.Inode != 0 {
			tell(s.Local, socket{inode: s.Inode, uid: s.UID})
		}
	})
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
